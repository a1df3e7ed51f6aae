//! What a node counts, for Prometheus. Names start with `throng_core_`.

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use throng_protocol::cluster::{Answer, Refusal};
use throng_protocol::ids::ShardId;

type Labels = Vec<(String, String)>;

/// The counters of a node. Cheap to clone; clones count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    /// Commands handed to Raft.
    pub proposals: Counter,
    /// Messages appended through this node as the leader; repeats not counted.
    pub appended: Counter,
    /// Bytes of bodies appended.
    pub appended_bytes: Counter,
    /// Changes to messages appended through this node as the leader; repeats not counted.
    pub changed: Counter,
    /// Commands applied by this node's replicas.
    pub applied: Counter,
    /// Fences applied by this node's replicas of message shards.
    pub fences_applied: Counter,
    /// Kicks and mutes answered before all shards had taken the fence.
    pub fences_pending: Counter,
    /// Outbox records delivered.
    pub outbox_sent: Counter,
    /// Snapshots installed from other nodes.
    pub snapshots_installed: Counter,
    /// Requests refused, by code.
    refusals: Family<Labels, Counter>,
    /// Requests of app back ends by what they came to: `ok` or a code.
    back_end_requests: Family<Labels, Counter>,
    /// Channels followed over feed lanes.
    pub feed_followers: Gauge,
    /// Open feed lanes.
    pub feed_lanes: Gauge,
    /// Bytes sent on feeds.
    pub feed_bytes: Counter,
    /// Entries sent on feeds.
    pub feed_entries: Counter,
    /// Fences sent on feeds at their places.
    pub feed_fences: Counter,
    /// Write transactions the store has synced to disk.
    pub store_commits: Gauge,
    /// Batches those transactions made durable.
    pub store_batches: Gauge,
    /// Bytes of those batches.
    pub store_bytes: Gauge,
    leader_shards: Gauge,
    failed_shards: Gauge,
    applied_index: Family<Labels, Gauge>,
    purged_index: Family<Labels, Gauge>,
    clock_ahead_ms: Gauge,
}

/// A replica as the metrics see it.
pub(crate) struct ReplicaFigures {
    pub shard: ShardId,
    pub applied: u64,
    pub purged: u64,
    pub leads: bool,
    pub failed: bool,
}

/// What a request came to.
fn code(answer: &Answer) -> Labels {
    let code = match answer {
        Ok(_) => "ok",
        Err(Refusal::NotLeader { .. }) => "not_leader",
        Err(Refusal::Code { code, .. }) => code.name(),
        Err(Refusal::GrantStale) => "grant_stale",
    };
    vec![("code".to_owned(), code.to_owned())]
}

impl Metrics {
    /// Counts a refused request.
    pub fn answered(&self, answer: &Answer) {
        if answer.is_err() {
            self.refusals.get_or_create(&code(answer)).inc();
        }
    }

    /// Counts a request of an app's back end.
    pub fn answered_back_end(&self, answer: &Answer) {
        self.back_end_requests.get_or_create(&code(answer)).inc();
    }

    /// Sets the gauges that are read off the replicas.
    pub fn observe(&self, replicas: &[ReplicaFigures]) {
        let count = |of: fn(&ReplicaFigures) -> bool| {
            i64::try_from(replicas.iter().filter(|replica| of(replica)).count()).unwrap_or(i64::MAX)
        };
        self.leader_shards.set(count(|replica| replica.leads));
        self.failed_shards.set(count(|replica| replica.failed));
        for replica in replicas {
            let labels = vec![("shard".to_owned(), replica.shard.to_string())];
            let gauge = |index: u64| i64::try_from(index).unwrap_or(i64::MAX);
            self.applied_index
                .get_or_create(&labels)
                .set(gauge(replica.applied));
            self.purged_index
                .get_or_create(&labels)
                .set(gauge(replica.purged));
        }
    }

    /// Sets how far this node's clock is ahead of the majority's.
    pub fn clock_ahead(&self, ms: i64) {
        self.clock_ahead_ms.set(ms);
    }

    /// A registry with everything in it.
    pub fn registry(&self) -> Registry {
        let mut registry = Registry::default();
        self.register_requests(&mut registry);
        self.register_feeds_and_store(&mut registry);
        self.register_replicas(&mut registry);
        registry
    }

    fn register_requests(&self, r: &mut Registry) {
        let m = self;
        r.register(
            "throng_core_proposals",
            "Commands handed to Raft",
            m.proposals.clone(),
        );
        r.register(
            "throng_core_appended_messages",
            "Messages appended as leader",
            m.appended.clone(),
        );
        r.register(
            "throng_core_appended_changes",
            "Changes to messages appended as leader",
            m.changed.clone(),
        );
        r.register(
            "throng_core_appended_bytes",
            "Bytes of bodies appended as leader",
            m.appended_bytes.clone(),
        );
        r.register(
            "throng_core_applied_commands",
            "Commands applied by replicas",
            m.applied.clone(),
        );
        r.register(
            "throng_core_outbox_sent",
            "Outbox records delivered",
            m.outbox_sent.clone(),
        );
        r.register(
            "throng_core_fences_applied",
            "Fences applied by replicas",
            m.fences_applied.clone(),
        );
        r.register(
            "throng_core_fences_pending",
            "Kicks and mutes answered before all shards had them",
            m.fences_pending.clone(),
        );
        r.register(
            "throng_core_refusals",
            "Requests refused, by code",
            m.refusals.clone(),
        );
        r.register(
            "throng_core_back_end_requests",
            "Requests of app back ends, by what they came to",
            m.back_end_requests.clone(),
        );
    }

    fn register_feeds_and_store(&self, r: &mut Registry) {
        let m = self;
        r.register(
            "throng_core_feed_followers",
            "Channels followed over feed lanes",
            m.feed_followers.clone(),
        );
        r.register("throng_core_feed_lanes", "Open feed lanes", m.feed_lanes.clone());
        r.register(
            "throng_core_feed_bytes",
            "Bytes sent on feeds",
            m.feed_bytes.clone(),
        );
        r.register(
            "throng_core_feed_entries",
            "Entries sent on feeds",
            m.feed_entries.clone(),
        );
        r.register(
            "throng_core_feed_fences",
            "Fences sent on feeds",
            m.feed_fences.clone(),
        );
        r.register(
            "throng_core_store_commits",
            "Transactions synced to disk",
            m.store_commits.clone(),
        );
        r.register(
            "throng_core_store_batches",
            "Batches those transactions made durable",
            m.store_batches.clone(),
        );
        r.register(
            "throng_core_store_bytes",
            "Bytes of those batches",
            m.store_bytes.clone(),
        );
    }

    fn register_replicas(&self, r: &mut Registry) {
        let m = self;
        r.register(
            "throng_core_snapshots_installed",
            "Snapshots installed from other nodes",
            m.snapshots_installed.clone(),
        );
        r.register(
            "throng_core_leader_shards",
            "Shards this node leads",
            m.leader_shards.clone(),
        );
        r.register(
            "throng_core_failed_shards",
            "Replicas that have stopped",
            m.failed_shards.clone(),
        );
        r.register(
            "throng_core_applied_index",
            "Last applied log index, by shard",
            m.applied_index.clone(),
        );
        r.register(
            "throng_core_purged_index",
            "Last log index that only a snapshot holds, by shard",
            m.purged_index.clone(),
        );
        r.register(
            "throng_core_clock_ahead_ms",
            "This clock minus the majority's",
            m.clock_ahead_ms.clone(),
        );
    }
}

/// The registry as Prometheus reads it.
pub(crate) fn render(registry: &Registry) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    encode(&mut text, registry)?;
    Ok(text)
}
