# Two lines to the Internet: marked packets and one network take the second.
wire wan0 && ip addr add 203.0.113.2/30 dev wan0
wire wan1 && ip addr add 198.51.100.2/30 dev wan1
wire lan0 && ip addr add 192.168.1.1/24 dev lan0
wire guest0 && ip addr add 192.168.2.1/24 dev guest0
ip route add default via 203.0.113.1 metric 10
ip route add default via 198.51.100.1 metric 20
ip route add default via 198.51.100.1 table 100
ip route add 192.168.1.0/24 dev lan0 table 100
ip rule add from 192.168.2.0/24 lookup 100 priority 900
ip rule add fwmark 0x1/0xff lookup 100 priority 901
ip rule add from 192.168.2.0/24 to 192.168.1.0/24 prohibit priority 800
ip rule add lookup main suppress_prefixlength 0 priority 700
ip rule add iif lan0 to 10.66.0.0/16 blackhole priority 650
ip rule add tos 0x10 lookup 100 priority 902
sysctl -qw net.ipv4.ip_forward=1
