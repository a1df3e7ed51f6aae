//! Channels through a running system, as the back end of an app manages them.

use serde_json::json;
use throng_client::{ChannelId, Code, Direction, GroupId, Seq};
use throng_cluster::sdk::connect;

use crate::back_end::BackEnd;
use crate::{throng, up};

#[tokio::test(flavor = "multi_thread")]
async fn an_archived_channel_is_only_read_until_it_is_opened_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let _system = up(folder.path(), 1);
    let Some(back_end) = BackEnd::of(folder.path()) else {
        return;
    };
    let (group, channel) = (
        GroupId::new("town").expect("valid"),
        ChannelId::new("hall").expect("valid"),
    );
    let ann = connect(&throng(), folder.path(), "ann", 0)
        .await
        .expect("connected");
    ann.create_group(&group).await.expect("made");
    ann.create_channel(&group, &channel).await.expect("made");
    ann.send(&group, &channel, "before").await.expect("stored");
    let archive = |method| back_end.call(method, "town/channels/hall/archive", &json!({}));
    assert_eq!(archive("PUT")["done"], true);
    let refused = ann.send(&group, &channel, "late").await.expect_err("refused");
    assert_eq!(refused.code, Some(Code::ChannelArchived));
    let closed = json!({"text": "closed"});
    let system = back_end.call("POST", "town/channels/hall/messages", &closed);
    assert_eq!(system["seq"], 2);
    let page = ann
        .history(&group, &channel, Seq(0), Direction::After, 9)
        .await
        .expect("read");
    assert_eq!(page.entries.len(), 2);
    assert_eq!(archive("DELETE")["done"], true);
    let ack = ann.send(&group, &channel, "after").await.expect("stored");
    assert_eq!(ack.seq, Seq(3));
}
