# A virtual router of VRRP: its address is on a macvlan.
wire lan0 && ip addr add 192.168.1.2/24 dev lan0
ip link add vrrp0 link lan0 type macvlan mode private && ip link set vrrp0 up && ip addr add 192.168.1.1/32 dev vrrp0
wire wan0 && ip addr add 203.0.113.2/24 dev wan0 && ip route add default via 203.0.113.1
sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.arp_ignore=1
