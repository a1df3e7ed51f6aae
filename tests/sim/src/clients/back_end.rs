//! The back end of the app, at the core nodes: it gives and takes roles. It runs beside the creator's client, and
//! goes down with it.
//!
//! An attempt whose answer is lost is not repeated behind the workload's back: the operation ends as unknown, so
//! what is not unknown was carried out between its question and its answer or never.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use throng_protocol::cluster::{self, PeerId, REQUEST_LANE, Refusal, Reply, Request};
use throng_protocol::code::{Class, Code};
use throng_protocol::ids::{AppId, NodeId};
use throng_transport::cluster::node_name;
use throng_transport::{ClusterEndpoint, ClusterPool};
use tokio::time::{Instant, sleep};

use crate::carrier::{Role, SimCarrier};
use crate::cluster::{CLUSTER, CORES, REQUEST_DEADLINE, core_address};
use crate::history::{Answer, Ask, Channel};
use crate::net::{HostId, Network};
use crate::{token, world};

/// How long one node may take: what a shard without a quorum lets an answer wait for, and an election.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(3_500);
/// Before the next node is asked.
const PAUSE: Duration = Duration::from_millis(50);

/// The back end of the app.
#[derive(Debug, Clone)]
pub struct BackEnd {
    pool: Arc<ClusterPool>,
}

/// Why there is no reply.
enum Failed {
    /// The node told why.
    Refused(Refusal),
    /// The node was not asked.
    Unreachable,
    /// The node was asked, and may have done it.
    Lost,
}

impl BackEnd {
    /// On a host of the network.
    ///
    /// # Errors
    /// If the host has no ports.
    pub fn new(net: &Network, host: HostId) -> io::Result<Self> {
        let names = vec![node_name(PeerId::Admin, CLUSTER)];
        let carrier = SimCarrier::bind(net, host, None, Role::Cluster, names)?;
        let endpoint = ClusterEndpoint::over(Arc::new(carrier), CLUSTER, PeerId::Admin);
        Ok(Self {
            pool: Arc::new(ClusterPool::new(Arc::new(endpoint))),
        })
    }

    /// Carries out a change of roles.
    pub async fn govern(&self, ask: Ask) -> Answer {
        match self.request(ask).await {
            Ok(Some(request)) => match self.ask(&request).await {
                Ok(reply) => fenced(&reply),
                Err(refused) => refused,
            },
            Ok(None) => Answer::Refused {
                code: 0,
                unknown: false,
            },
            Err(refused) => refused,
        }
    }

    /// Asks until a node answers, each in turn and each at most once without an answer.
    ///
    /// # Errors
    /// The answer to an operation that was refused or is unknown.
    pub async fn ask(&self, request: &Request) -> Result<Reply, Answer> {
        let until = Instant::now() + REQUEST_DEADLINE;
        let mut next = 1;
        while Instant::now() < until {
            let leader = match self.attempt(next, request).await {
                Ok(reply) => return Ok(reply),
                Err(Failed::Lost) => {
                    return Err(Answer::Refused {
                        code: 0,
                        unknown: true,
                    });
                }
                Err(Failed::Refused(Refusal::Code { code, .. })) => {
                    // What a leader began that was lost, or whose disk filled behind it, may be done.
                    return Err(Answer::Refused {
                        code: code.number(),
                        unknown: code.class() != Class::Fatal || code == Code::Internal,
                    });
                }
                Err(Failed::Refused(Refusal::NotLeader { leader })) => leader,
                Err(Failed::Refused(Refusal::GrantStale) | Failed::Unreachable) => None,
            };
            next = leader
                .and_then(|leader| u8::try_from(leader.0).ok())
                .unwrap_or(next % CORES + 1);
            sleep(PAUSE).await;
        }
        Err(Answer::Refused {
            code: Code::Unavailable.number(),
            unknown: false,
        })
    }

    async fn attempt(&self, node: u8, request: &Request) -> Result<Reply, Failed> {
        let peer = PeerId::Core(NodeId(node.into()));
        let rpc = self.pool.rpc(peer, core_address(node), REQUEST_LANE).await;
        let Ok(client) = rpc else {
            return Err(Failed::Unreachable);
        };
        let Ok(answer) = client.call(cluster::encode(request), ANSWER_TIMEOUT).await else {
            return Err(Failed::Lost);
        };
        match cluster::decode::<cluster::Answer>(&answer) {
            Ok(answer) => answer.map_err(Failed::Refused),
            Err(_) => Err(Failed::Lost),
        }
    }

    /// The request of a change of roles; `None` for one of somebody who is not of this world.
    async fn request(&self, ask: Ask) -> Result<Option<Request>, Answer> {
        let (Ok(app), Ok(role)) = (AppId::new(token::APP), world::moderator()) else {
            return Ok(None);
        };
        Ok(match ask {
            Ask::Permit { group, may } => group.id().ok().map(|group| Request::PutRole {
                app,
                group,
                role,
                permissions: world::permissions(may),
            }),
            Ask::Assign { group, user, has } => {
                let (Ok(group), Ok(user)) = (group.id(), user.id()) else {
                    return Ok(None);
                };
                let known = Request::KnownUser {
                    app: app.clone(),
                    user: user.clone(),
                };
                // Nothing was done yet, whatever becomes of this question.
                let Ok(Reply::KnownUser(Some(number))) = self.ask(&known).await else {
                    return Ok(None);
                };
                Some(Request::AssignRoles {
                    app,
                    group,
                    user,
                    number,
                    roles: if has { vec![role] } else { Vec::new() },
                })
            }
            _ => None,
        })
    }
}

fn fenced(reply: &Reply) -> Answer {
    match reply {
        Reply::Fenced {
            version,
            pending,
            more,
        } => Answer::Fenced {
            version: *version,
            pending: pending.iter().filter_map(Channel::named).collect(),
            more: *more,
        },
        _ => Answer::Refused {
            code: 0,
            unknown: true,
        },
    }
}
