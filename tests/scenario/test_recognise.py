from __future__ import annotations

import pytest

from harness.scenario.recognise import is_other_yaml

OTHERS = {
    "Kubernetes": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {ruleset: edge.nft}\n",
    "Kubernetes' roles": "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nrules: [{verbs: [get]}]\n",
    "several documents": "kind: A\n---\nkind: B\n---\n",
    "Compose": "services:\n  web: {image: x, expose: [80]}\n",
    "Ansible": "- hosts: all\n  tasks: [{name: x, apt: {name: nftables}}]\n",
    "GitHub Actions": "on: push\njobs:\n  a: {steps: [{run: x}]}\n",
    "a lab": "hosts: {device: {}}\nlinks: []\n",
    "tags": "Resources: {a: !Ref b}\n",
    "anchors": "a: &a {x: 1}\nb: *a\n",
    "keys that are no text": "? [a, b]\n: 1\n1: 2\n",
    "a list": "- a\n- b\n",
}
OURS = {
    "empty": "",
    "a comment": "# scenarios\n",
    "no document": "---\n",
    "a word": "scenarios\n",
    "no YAML": "scenarois: [\n",
    "a tab": "a:\n\tb: 1\n",
    "a template": "{{ x }}: {% if %}\n",
    "a key misspelt": "scenarois: []\n",
    "another": "rulset: edge.nft\nscenrios: []\n",
    "capital letters": "Scenarios: []\n",
    "a key of ours": "x: 1\nlab: router\n",
    "all keys misspelt": "rules: a\ntests:\n  - {name: a, send: {}, expect: {}}\n",
    "the list alone": "- name: a\n  send: {from: client}\n",
    "the second document": "kind: A\n---\nruleset: edge.nft\n",
    "flow style": "{ruleset: edge.nft}\n",
    "quoted": '"scenarios": []\n',
}


@pytest.mark.parametrize("text", OTHERS.values(), ids=OTHERS)
def test_other_yaml_is_left_alone(text: str) -> None:
    assert is_other_yaml(text)


@pytest.mark.parametrize("text", OURS.values(), ids=OURS)
def test_what_may_be_a_broken_scenario_file_is_not(text: str) -> None:
    assert not is_other_yaml(text)


def test_nesting_and_aliases_are_not_followed() -> None:
    bomb = "a0: &a0 x\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 30))
    assert is_other_yaml(bomb)
    assert not is_other_yaml("a: " + "[" * 20_000)
