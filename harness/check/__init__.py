"""What is wrong with scenario files and the rulesets that they name, as far as it shows without a kernel."""
