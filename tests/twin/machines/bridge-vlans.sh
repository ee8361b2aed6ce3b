# A bridge that knows VLANs, with a trunk and access ports, and an interface for each VLAN.
ip link add br0 type bridge vlan_filtering 1 && ip link set br0 up
wire trunk0 && wire desk0 && wire phone0 && wire wan0
for port in trunk0 desk0 phone0; do ip link set $port master br0; done
bridge vlan del dev trunk0 vid 1 && bridge vlan add dev trunk0 vid 10 && bridge vlan add dev trunk0 vid 20
bridge vlan del dev desk0 vid 1 && bridge vlan add dev desk0 vid 10 pvid untagged
bridge vlan del dev phone0 vid 1 && bridge vlan add dev phone0 vid 20 pvid untagged
bridge vlan del dev br0 vid 1 self && bridge vlan add dev br0 vid 10 self && bridge vlan add dev br0 vid 20 self
ip link add link br0 name br0.10 type vlan id 10 && ip link set br0.10 up && ip addr add 192.168.10.1/24 dev br0.10
ip link add link br0 name br0.20 type vlan id 20 && ip link set br0.20 up && ip addr add 192.168.20.1/24 dev br0.20
ip addr add 203.0.113.2/30 dev wan0
ip route add default via 203.0.113.1
sysctl -qw net.ipv4.ip_forward=1
