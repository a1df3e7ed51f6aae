//! The commented examples `throng config` prints. They start as they are.
//!
//! A setting that is off is written `# key = value`; prose never has that form.

/// `throng config core`.
pub const CORE_EXAMPLE: &str = r#"# A core node of throng. One file serves all nodes: start each with its own --id.
# Every key can be given by environment as THRONG_CORE_<KEY> (dots become underscores)
# and by flag as --set key=value; flags win over environment, environment over this file.

# Which of the nodes below this process is.
id = 1

# The cluster's name; nodes and edges of another cluster are refused.
cluster = "throng"

# The data folder; {id} stands for the id. One LMDB environment for all shards of the node.
data = "throng-data/core-{id}"

[tls]
# A development CA on this machine: made if absent, certificates are issued from it for 14 days
# and renewed at start. For anything but development name files instead.
development_ca = "throng-data/tls"

# The CA of the cluster wire, PEM.
# ca = "/etc/throng/ca.pem"

# This node's certificate, PEM; a SAN is core-<id>.<cluster>.throng.internal.
# cert = "/etc/throng/node.pem"

# Its private key, PEM, mode 0600.
# key = "/etc/throng/node.key"

# The certificate that back ends see at the Server API, PEM chain.
# client_cert = "/etc/throng/api.pem"

# Its private key, PEM, mode 0600.
# client_key = "/etc/throng/api.key"

[shards]
# Shards of a new cluster; ignored once it exists.
management = 4
message = 8

# Voting replicas of each shard.
replicas = 3

[storage]
# Log entries of a shard between snapshots, and kept behind one for replicas that are a little late.
snapshot_every = 20000
log_keep = 2000

# All core nodes: where they listen for each other and for edges (UDP), where others reach them if
# that is elsewhere, where they answer /healthz, /readyz and /metrics (loopback HTTP), and where they
# serve the Server API to back ends (HTTPS), each of them all of it.
[[nodes]]
id = 1
addr = "127.0.0.1:7101"
# advertise = "core-1.example:7101"
observe = "127.0.0.1:7201"
server_api = "127.0.0.1:7401"

[[nodes]]
id = 2
addr = "127.0.0.1:7102"
observe = "127.0.0.1:7202"
server_api = "127.0.0.1:7402"

[[nodes]]
id = 3
addr = "127.0.0.1:7103"
observe = "127.0.0.1:7203"
server_api = "127.0.0.1:7403"
"#;

/// `throng config gateway`.
pub const GATEWAY_EXAMPLE: &str = r#"# An edge of throng. One file serves all edges: start each with its own --id.
# Every key can be given by environment as THRONG_GATEWAY_<KEY> (dots become underscores)
# and by flag as --set key=value; flags win over environment, environment over this file.

# Which of the edges below this process is.
id = 1

# The cluster's name; nodes of another cluster are refused.
cluster = "throng"

# Most client connections at once; the next one is told to go elsewhere.
connections_max = 100000

# Threads that serve clients, each with a socket of its own (SO_REUSEPORT); as many as there are
# processors unless set, at most 64.
# workers = 4

[tls]
# A development CA on this machine: made if absent, certificates are issued from it for 14 days
# and renewed at start. For anything but development name files instead.
development_ca = "throng-data/tls"

# The CA of the cluster wire, PEM.
# ca = "/etc/throng/ca.pem"

# This edge's certificate on the cluster wire, PEM; a SAN is edge-<id>.<cluster>.throng.internal.
# cert = "/etc/throng/edge.pem"

# Its private key, PEM, mode 0600.
# key = "/etc/throng/edge.key"

# The certificate clients see, PEM chain.
# client_cert = "/etc/throng/public.pem"

# Its private key, PEM, mode 0600.
# client_key = "/etc/throng/public.key"

# Handshakes. A network is an IPv4 /24 or an IPv6 /56. A client proves its address with one round trip
# more; from a forged address there is no way past that.
[handshakes]
# Most open at once; further ones are refused.
open_max = 1024

# Milliseconds one may take.
timeout_ms = 5000

# Open handshakes, and handshakes a second, above which clients prove their addresses first.
retry_above = 256
unproven_per_second = 1000

# Most open handshakes of one network, and the number above which its clients prove their addresses.
# Raise both where many users come from behind one address.
network_open_max = 256
network_retry_above = 64

# Handshakes a second of one network, and how many at once after a pause. Further ones are refused.
network_per_second = 100
network_burst = 1000

# All edges: where they listen for clients (UDP), and where they answer /healthz, /readyz and
# /metrics (loopback HTTP). An edge that drains names the others to its clients.
[[edges]]
id = 1
listen = "127.0.0.1:7443"
observe = "127.0.0.1:7301"

[[edges]]
id = 2
listen = "127.0.0.1:7444"
observe = "127.0.0.1:7302"

# All core nodes; entries of a core node's file may stand here as they are.
[[nodes]]
id = 1
addr = "127.0.0.1:7101"
# advertise = "core-1.example:7101"
# observe = "127.0.0.1:7201"
# server_api = "127.0.0.1:7401"

[[nodes]]
id = 2
addr = "127.0.0.1:7102"

[[nodes]]
id = 3
addr = "127.0.0.1:7103"
"#;
