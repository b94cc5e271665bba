//! Groups of several, in one process: real logs on disk, and a network whose links can be cut.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Instant;

use super::*;

/// Carries messages between members. Links that are cut lose them.
#[derive(Clone, Default)]
struct Network {
    shared: Arc<Mutex<Links>>,
}

#[derive(Default)]
struct Links {
    members: BTreeMap<u64, Raft>,
    cut: BTreeSet<u64>,
    snapshots: usize,
}

impl Network {
    fn outbox(&self, from: u64) -> Outbox {
        let shared = self.shared.clone();
        Box::new(move |message| {
            let mut links = shared.lock().unwrap();
            let lost = links.cut.contains(&from) || links.cut.contains(&message.to);
            links.snapshots += usize::from(message.is_snapshot && !lost);
            if message.is_snapshot
                && let Some(sender) = links.members.get(&from)
            {
                sender.sent_snapshot(message.to, !lost);
            }
            match links.members.get(&message.to) {
                Some(target) if !lost => target.step(message.bytes),
                _ => {}
            }
        })
    }

    fn cut(&self, member: u64, cut: bool) {
        let mut links = self.shared.lock().unwrap();
        if cut {
            links.cut.insert(member)
        } else {
            links.cut.remove(&member)
        };
    }
}

struct Group {
    network: Network,
    scratches: BTreeMap<u64, Scratch>,
    members: BTreeMap<u64, Raft>,
    snapshot_every: u64,
}

impl Group {
    fn empty(snapshot_every: u64) -> Self {
        Self {
            network: Network::default(),
            scratches: BTreeMap::new(),
            members: BTreeMap::new(),
            snapshot_every,
        }
    }

    async fn start(size: u64, snapshot_every: u64) -> Self {
        let mut group = Self::empty(snapshot_every);
        group.open(1, Begin::Found).await;
        assert!(group.members[&1].leadership_until(is_leader).await);
        for member in 2..=size {
            group.take_in(member).await;
        }
        group
    }

    async fn open(&mut self, member: u64, begin: Begin) {
        let scratch = self.scratches.entry(member).or_insert_with(Scratch::new);
        let config = RaftConfig {
            raft_id: member,
            snapshot_every: self.snapshot_every,
            begin,
            ..scratch.config()
        };
        let raft = raft_start(config, self.network.outbox(member)).await;
        self.network.shared.lock().unwrap().members.insert(member, raft.clone());
        self.members.insert(member, raft);
    }

    /// As a manager joins: told everything first, then given a say.
    async fn take_in(&mut self, member: u64) {
        self.open(member, Begin::Join).await;
        let leader = self.leader().await;
        leader.change_members(MemberChange::Learner(member)).await.unwrap();
        until("it has caught up", async || leader.caught_up().await.unwrap().contains(&member))
            .await;
        leader.change_members(MemberChange::Voter(member)).await.unwrap();
    }

    async fn crash(&mut self, member: u64) {
        self.network.shared.lock().unwrap().members.remove(&member);
        self.members.remove(&member).unwrap().shutdown().await;
    }

    /// A member that leads, is not cut off, and is followed by most.
    async fn leader(&self) -> Raft {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let cut = self.network.shared.lock().unwrap().cut.clone();
            let leading = self.members.iter().filter(|(id, _)| !cut.contains(id));
            let leading = leading.filter(|(_, raft)| is_leader(raft.leadership()));
            if let Some((_, raft)) = leading.max_by_key(|(_, raft)| raft.status().term) {
                return raft.clone();
            }
            assert!(Instant::now() < deadline, "nobody leads");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Commits on whoever leads, through changes of leaders; returns the term it was done in.
    async fn write(&self, number: u64) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let leader = self.leader().await;
            let wrote =
                tokio::time::timeout(Duration::from_secs(5), leader.propose(create(number)));
            match wrote.await {
                Ok(Ok(_)) => return,
                // Made already, by the try before.
                Ok(Err(ProposeError::Conflict(_))) => return,
                Ok(Err(error)) => assert!(Instant::now() < deadline, "{error}"),
                Err(_) => assert!(Instant::now() < deadline, "no answer"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn until_all_have(&self, wanted: &[u64]) {
        for (id, raft) in &self.members {
            until(&format!("member {id} has all"), async || stacks(&raft.store()) == wanted).await;
        }
    }
}

async fn raft_start(config: RaftConfig, outbox: Outbox) -> Raft {
    super::super::start(config, outbox).await.unwrap()
}

async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn voters(members: &[u64]) -> Members {
    Members { voters: members.iter().copied().collect(), learners: BTreeSet::new() }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_join_and_all_have_every_write() {
    let group = Group::start(3, 1000).await;
    for number in 0..50 {
        group.write(number).await;
    }
    let all: Vec<u64> = (0..50).collect();
    group.until_all_have(&all).await;
    for raft in group.members.values() {
        until("all know who is in it", async || raft.members() == voters(&[1, 2, 3])).await;
    }
    let followers = group.members.values().filter(|raft| !is_leader(raft.leadership())).count();
    assert_eq!(followers, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_is_lost_and_nothing_that_was_acknowledged_with_it() {
    let mut group = Group::start(3, 1000).await;
    for number in 0..20 {
        group.write(number).await;
    }
    let lost = group.leader().await.status().id;
    group.crash(lost).await;
    for number in 20..40 {
        group.write(number).await;
    }
    assert_ne!(group.leader().await.status().id, lost);
    group.open(lost, Begin::Found).await;
    let all: Vec<u64> = (0..40).collect();
    group.until_all_have(&all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_acknowledges_nothing_and_gives_up() {
    let group = Group::start(3, 1000).await;
    group.write(0).await;
    let old = group.leader().await;
    group.network.cut(old.status().id, true);
    let alone = tokio::spawn({
        let old = old.clone();
        async move { old.propose(create(900)).await }
    });
    for number in 1..10 {
        group.write(number).await;
    }
    let refused = alone.await.unwrap();
    assert!(matches!(refused, Err(ProposeError::LeaderChanged)), "{refused:?}");
    assert!(!is_leader(old.leadership()), "it knows that it does not lead");
    group.network.cut(old.status().id, false);
    let all: Vec<u64> = (0..10).collect();
    group.until_all_have(&all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_most_of_the_members_nothing_is_acknowledged() {
    let group = Group::start(3, 1000).await;
    group.write(0).await;
    let leader = group.leader().await.status().id;
    for member in group.members.keys().filter(|member| **member != leader) {
        group.network.cut(*member, true);
    }
    let raft = &group.members[&leader];
    assert!(raft.propose(create(1)).await.is_err());
    let read = tokio::time::timeout(Duration::from_millis(500), raft.read_barrier()).await;
    assert!(!matches!(read, Ok(Ok(_))), "nobody leads");
    for member in group.members.keys() {
        group.network.cut(*member, false);
    }
    group.write(2).await;
    until("it is whole again", async || {
        group.members.values().all(|raft| stacks(&raft.store()).contains(&2))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_away_for_long_catches_up_by_a_snapshot_and_keeps_it() {
    let mut group = Group::start(3, 20).await;
    let away = (1..=3).find(|id| !is_leader(group.members[id].leadership())).unwrap();
    group.crash(away).await;
    for number in 0..150 {
        group.write(number).await;
    }
    let before = group.network.shared.lock().unwrap().snapshots;
    group.open(away, Begin::Found).await;
    let all: Vec<u64> = (0..150).collect();
    group.until_all_have(&all).await;
    assert!(group.network.shared.lock().unwrap().snapshots > before, "the log alone did it");
    group.crash(away).await;
    group.open(away, Begin::Found).await;
    group.write(150).await;
    let all: Vec<u64> = (0..151).collect();
    group.until_all_have(&all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_go_down_and_come_back() {
    let mut group = Group::start(3, 20).await;
    for number in 0..50 {
        group.write(number).await;
    }
    for member in 1..=3 {
        group.crash(member).await;
    }
    for member in 1..=3 {
        group.open(member, Begin::Found).await;
    }
    group.write(50).await;
    let all: Vec<u64> = (0..51).collect();
    group.until_all_have(&all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_go_and_the_last_does_not() {
    let mut group = Group::start(3, 1000).await;
    group.write(0).await;
    let leader = group.leader().await;
    let own = leader.status().id;
    for member in (1..=3).filter(|member| *member != own) {
        let left = leader.change_members(MemberChange::Remove(member)).await.unwrap();
        assert!(!left.voters.contains(&member));
        group.crash(member).await;
    }
    assert_eq!(leader.members(), voters(&[own]));
    for change in [MemberChange::Remove(own), MemberChange::Learner(own)] {
        let refused = leader.change_members(change).await;
        assert!(matches!(refused, Err(ProposeError::Members(_))), "{refused:?}");
    }
    group.write(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_is_handed_over_where_asked() {
    let group = Group::start(3, 1000).await;
    group.write(0).await;
    let leader = group.leader().await;
    let next = (1..=3).find(|member| *member != leader.status().id).unwrap();
    leader.transfer_leadership(next);
    until("the other leads", async || is_leader(group.members[&next].leadership())).await;
    group.write(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_make_no_sense_change_nothing() {
    let group = Group::start(3, 1000).await;
    group.write(0).await;
    for raft in group.members.values() {
        for bytes in [&b""[..], b"\xff\xff\xff", b"no message at all"] {
            raft.step(bytes.to_vec());
        }
    }
    group.write(1).await;
    group.until_all_have(&[0, 1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_member_reads_what_was_acknowledged_anywhere() {
    let group = Group::start(3, 1000).await;
    for number in 0..20 {
        group.write(number).await;
        for raft in group.members.values() {
            assert!(stacks(&raft.read_barrier().await.unwrap()).contains(&number));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_wait_for_the_next_leader() {
    let mut group = Group::start(3, 1000).await;
    group.write(0).await;
    let lost = group.leader().await.status().id;
    group.crash(lost).await;
    for raft in group.members.values() {
        until("it is read", async || {
            let read = tokio::time::timeout(Duration::from_millis(500), raft.read_barrier()).await;
            matches!(read, Ok(Ok(store)) if stacks(&store) == [0])
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_left_goes_on_alone_with_all_that_it_knows() {
    let mut group = Group::start(3, 20).await;
    for number in 0..50 {
        group.write(number).await;
    }
    let all: Vec<u64> = (0..50).collect();
    group.until_all_have(&all).await;
    for member in 1..=3 {
        group.crash(member).await;
    }
    group.open(2, Begin::Alone).await;
    let alone = group.members[&2].clone();
    until("it leads", async || is_leader(alone.leadership())).await;
    assert_eq!((stacks(&alone.store()), alone.members()), (all, voters(&[2])));
    group.write(50).await;
    // It stays so, and others can join.
    group.crash(2).await;
    group.open(2, Begin::Join).await;
    assert_eq!(group.members[&2].members(), voters(&[2]));
    group.take_in(4).await;
    let all: Vec<u64> = (0..51).collect();
    group.until_all_have(&all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_begins_with_what_another_one_had() {
    let group = Group::start(1, 1000).await;
    for number in 0..5 {
        group.write(number).await;
    }
    let store = group.members[&1].store();
    let mut restored = Group::empty(1000);
    restored.open(1, Begin::Restore(Box::new(store.clone()))).await;
    restored.write(5).await;
    // What came after is not lost when it begins so once more.
    restored.crash(1).await;
    restored.open(1, Begin::Restore(Box::new(store))).await;
    restored.write(6).await;
    restored.take_in(2).await;
    restored.until_all_have(&[0, 1, 2, 3, 4, 5, 6]).await;
}
