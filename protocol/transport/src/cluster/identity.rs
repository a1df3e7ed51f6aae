//! Names of nodes in certificates.

use throng_protocol::cluster::PeerId;
use throng_protocol::ids::{EdgeId, NodeId};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The domain all names of nodes are under; never resolved.
const DOMAIN: &str = "throng.internal";
/// Longest name of a cluster: one label of DNS, shortened so that whole names stay readable.
const CLUSTER_BYTES_MAX: usize = 40;

/// The DNS name a node's certificate carries.
pub fn node_name(peer: PeerId, cluster: &str) -> String {
    match peer {
        PeerId::Core(id) => format!("core-{id}.{cluster}.{DOMAIN}"),
        PeerId::Edge(id) => format!("edge-{id}.{cluster}.{DOMAIN}"),
        PeerId::Admin => format!("admin.{cluster}.{DOMAIN}"),
    }
}

/// Checks that a cluster's name is one label of DNS: lower-case letters, digits and inner hyphens.
pub fn check_cluster_name(cluster: &str) -> Result<(), String> {
    let shaped = cluster
        .bytes()
        .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    let inner = !cluster.starts_with('-') && !cluster.ends_with('-');
    if shaped && inner && (1..=CLUSTER_BYTES_MAX).contains(&cluster.len()) {
        return Ok(());
    }
    Err(format!(
        "the cluster name {cluster:?} is not 1 to {CLUSTER_BYTES_MAX} lower-case letters, digits and inner hyphens"
    ))
}

/// The one node of a cluster that the names in a certificate name, or what is wrong with them.
pub(crate) fn peer_among(names: &[String], cluster: &str) -> Result<PeerId, String> {
    let mut nodes = names.iter().filter(|name| name.ends_with(&format!(".{DOMAIN}")));
    let (Some(name), None) = (nodes.next(), nodes.next()) else {
        return Err(format!(
            "the certificate does not name exactly one node under {DOMAIN}: {names:?}"
        ));
    };
    parse(name, cluster)
        .ok_or_else(|| format!("the certificate names {name}, which is not of cluster {cluster}"))
}

fn parse(name: &str, cluster: &str) -> Option<PeerId> {
    let label = name.strip_suffix(&format!(".{cluster}.{DOMAIN}"))?;
    let peer = match label.split_once('-') {
        None if label == "admin" => PeerId::Admin,
        Some(("core", id)) => PeerId::Core(NodeId(id.parse().ok()?)),
        Some(("edge", id)) => PeerId::Edge(EdgeId(id.parse().ok()?)),
        _ => return None,
    };
    // Only the one spelling this crate writes: no leading zeros or signs.
    (node_name(peer, cluster) == name).then_some(peer)
}

pub(crate) fn dns_names(certificate: &[u8]) -> Option<Vec<String>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let names = parsed.subject_alternative_name().ok()?;
    let names = names
        .map(|names| names.value.general_names.as_slice())
        .unwrap_or_default();
    Some(
        names
            .iter()
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => Some((*name).to_owned()),
                _ => None,
            })
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_back_as_the_node_it_was_made_of() {
        for peer in [
            PeerId::Core(NodeId(3)),
            PeerId::Edge(EdgeId(u64::MAX)),
            PeerId::Admin,
        ] {
            assert_eq!(parse(&node_name(peer, "dev"), "dev"), Some(peer));
            assert_eq!(parse(&node_name(peer, "dev"), "prod"), None);
        }
    }

    #[test]
    fn other_spellings_name_nobody() {
        for name in [
            "core-03", "core-+3", "core-", "core", "admin-1", "Core-3", "x.core-3", "",
        ] {
            assert_eq!(parse(&format!("{name}.dev.{DOMAIN}"), "dev"), None, "{name}");
        }
    }

    #[test]
    fn a_cluster_name_is_one_label() {
        assert_eq!(check_cluster_name("dev-2"), Ok(()));
        for name in ["", "a.b", "-a", "a-", "A", &"a".repeat(41)] {
            assert!(check_cluster_name(name).is_err(), "{name}");
        }
    }
}
