//! Roles through a running system: a back end gives and takes permissions while clients stay connected.

use std::time::Duration;

use serde_json::json;
use throng_client::{ChannelId, Client, Code, From, GroupId, Position, UserId};
use throng_cluster::sdk::connect;

use crate::back_end::BackEnd;
use crate::{throng, up};

async fn sent(client: &Client, group: &GroupId, channel: &ChannelId, text: &'static str) -> Position {
    let ack = client.send(group, channel, text).await.expect("stored");
    Position {
        epoch: ack.epoch,
        seq: ack.seq,
    }
}

/// What the app itself says comes from nobody.
async fn system_message(back_end: &BackEnd, eve: &Client, (group, channel): (&GroupId, &ChannelId)) {
    let mut live = eve.subscribe(group, channel, From::Head).await.expect("begins");
    let quiet = json!({"text": "quiet, please"});
    let notice = back_end.call("POST", "town/channels/hall/messages", &quiet);
    let heard = live.recv().await.expect("the subscription goes on");
    assert_eq!(notice["seq"], heard.seq.0);
    assert_eq!(
        (heard.sender_number.0, &heard.body[..]),
        (0, &b"quiet, please"[..])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_role_gives_and_takes_holds_for_clients_that_are_connected() {
    let folder = tempfile::tempdir().expect("a folder");
    let _system = up(folder.path(), 2);
    let Some(back_end) = BackEnd::of(folder.path()) else {
        return;
    };
    let (group, channel) = (
        GroupId::new("town").expect("valid"),
        ChannelId::new("hall").expect("valid"),
    );
    let connected = |user: &'static str, edge| {
        let folder = folder.path().to_owned();
        async move { connect(&throng(), &folder, user, edge).await.expect("connected") }
    };
    let (ann, bob, eve) = (
        connected("ann", 0).await,
        connected("bob", 1).await,
        connected("eve", 1).await,
    );
    ann.create_group(&group).await.expect("made");
    ann.create_channel(&group, &channel).await.expect("made");
    bob.join(&group).await.expect("in");
    eve.join(&group).await.expect("in");
    let first = sent(&ann, &group, &channel, "first").await;
    let second = sent(&ann, &group, &channel, "second").await;
    let mut eves = Vec::new();
    for text in ["third", "fourth"] {
        eves.push(sent(&eve, &group, &channel, text).await);
    }
    let refused = bob.recall(&group, &channel, first).await.expect_err("refused");
    assert_eq!(refused.code, Some(Code::Forbidden));

    let done = |method: &str, path: &str, body: serde_json::Value| {
        let answer = back_end.call(method, path, &body);
        assert_eq!(answer["done"], true, "{method} {path}: {answer}");
    };
    // What bob gains holds at once, although the edge holds a grant from before.
    let moderator = json!({"permissions": ["recall_others", "mute"]});
    done("PUT", "town/roles/moderator", moderator);
    done("PUT", "town/members/bob/roles", json!({"roles": ["moderator"]}));
    bob.recall(&group, &channel, first).await.expect("recalled");
    let (minute, eves_name) = (Duration::from_secs(60), UserId::new("eve").expect("valid"));
    bob.mute(&group, &eves_name, minute).await.expect("muted");
    let muted = eve.send(&group, &channel, "psst").await.expect_err("refused");
    assert_eq!(muted.code, Some(Code::Muted));
    bob.mute_until(&group, &eves_name, 0).await.expect("unmuted");
    sent(&eve, &group, &channel, "heard").await;

    // What the role loses is lost when the back end hears so.
    done("PUT", "town/roles/moderator", json!({"permissions": ["mute"]}));
    let refused = bob.recall(&group, &channel, second).await.expect_err("refused");
    assert_eq!(refused.code, Some(Code::Forbidden));
    done("PUT", "town/members/bob/roles", json!({"roles": []}));
    let refused = bob.mute(&group, &eves_name, minute).await;
    assert_eq!(refused.expect_err("refused").code, Some(Code::Forbidden));

    // A group in which only the creator and who has a role may send.
    done("PUT", "town/roles/everyone", json!({"permissions": ["expand"]}));
    for client in [&bob, &eve] {
        let refused = client
            .send(&group, &channel, "nobody")
            .await
            .expect_err("refused");
        assert_eq!(refused.code, Some(Code::Forbidden));
    }
    let refused = eve.modify(&group, &channel, eves[0], "no").await;
    assert_eq!(refused.expect_err("refused").code, Some(Code::Forbidden));
    eve.recall(&group, &channel, eves[1])
        .await
        .expect("one's own may always be taken back");
    sent(&ann, &group, &channel, "the creator").await;
    done("PUT", "town/roles/speaker", json!({"permissions": ["send"]}));
    done("PUT", "town/members/bob/roles", json!({"roles": ["speaker"]}));
    sent(&bob, &group, &channel, "a speaker").await;
    system_message(&back_end, &eve, (&group, &channel)).await;
    let unknown = back_end.call("PUT", "town/members/eve/roles", &json!({"roles": ["nobody"]}));
    assert_eq!(unknown["error"]["name"], "role_unknown");
}
