//! Maps of a room: members, members that left, chat. Copies share the entries that neither has changed: every commit is
//! decided on a copy of its room and compared with it, and in a large room few entries change.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Member;
use crate::domain::UserId;

/// A copy-on-write map whose copies share equal entries.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(
    transparent,
    bound(deserialize = "K: Ord + Deserialize<'de>, V: Deserialize<'de>", serialize = "K: Serialize, V: Serialize")
)]
pub struct SharedMap<K, V>(Arc<BTreeMap<K, Arc<V>>>);

/// Members by id, including those in their grace time.
pub type Members = SharedMap<UserId, Member>;

impl<K, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Ord + Clone, V: Clone + PartialEq> SharedMap<K, V> {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn get(&self, key: &K) -> Option<&V> {
        self.0.get(key).map(|value| &**value)
    }

    pub fn contains_key(&self, key: &K) -> bool {
        self.0.contains_key(key)
    }

    /// The entries, by key.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.0.iter().map(|(key, value)| (key, &**value))
    }

    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.keys()
    }

    /// The values, in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.0.values().map(|value| &**value)
    }

    /// Entries that differ from those in `before`, or are new. Shared entries are not compared.
    pub(crate) fn changed_since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = (&'a K, &'a V)> {
        let all = if Arc::ptr_eq(&self.0, &before.0) { None } else { Some(self.0.iter()) };
        let is_same = |key: &K, value: &Arc<V>| {
            before.0.get(key).is_some_and(|known| Arc::ptr_eq(known, value) || known == value)
        };
        let changed = all.into_iter().flatten().filter(move |(key, value)| !is_same(key, value));
        changed.map(|(key, value)| (key, &**value))
    }

    /// Entries of `before` that are gone.
    pub(crate) fn gone_since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = (&'a K, &'a V)> {
        let all = if Arc::ptr_eq(&self.0, &before.0) { None } else { Some(before.iter()) };
        all.into_iter().flatten().filter(|(key, _)| !self.contains_key(key))
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        // Checked first: a missing key must not copy the map.
        if !self.contains_key(key) {
            return None;
        }
        Arc::make_mut(&mut self.0).get_mut(key).map(Arc::make_mut)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        Arc::make_mut(&mut self.0).insert(key, Arc::new(value));
    }

    pub(crate) fn remove(&mut self, key: &K) {
        if self.contains_key(key) {
            Arc::make_mut(&mut self.0).remove(key);
        }
    }
}

impl<K: Ord + Clone, V: Clone + PartialEq> PartialEq for SharedMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.changed_since(other).next().is_none()
    }
}

/// For tests: panics if there is no such member.
#[cfg(test)]
impl std::ops::Index<&UserId> for Members {
    type Output = Member;

    fn index(&self, user: &UserId) -> &Member {
        &self.0[user]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        Dialect, Limits, MemberSlot, NodeId, RoomTime, SessionRef, TokenHash, TransportKind, Username,
    };
    use crate::room::MemberConnection;

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    fn member(slot: u16) -> Member {
        Member {
            name: Username::parse("Ann", &Limits::default()).unwrap(),
            slot: MemberSlot(slot),
            joined_at: RoomTime::default(),
            connection: MemberConnection::Live(SessionRef { node: NodeId::parse("node-1").unwrap(), id: 1 }),
            dialect: Dialect::V3,
            transport: TransportKind::WebSocket,
            token: TokenHash::from_bytes([0; 32]),
            previous_token: None,
            recent: [].into(),
            player: Default::default(),
            origin: Default::default(),
        }
    }

    fn names<'a>(members: impl Iterator<Item = (&'a UserId, &'a Member)>) -> Vec<&'a str> {
        members.map(|(user, _)| user.as_str()).collect()
    }

    #[test]
    fn a_copy_differs_in_what_was_changed_since_and_in_nothing_else() {
        let mut before = Members::default();
        for (slot, name) in ["ann", "bob", "eve"].into_iter().enumerate() {
            before.insert(user(name), member(slot as u16));
        }
        let mut after = before.clone();
        assert_eq!((names(after.changed_since(&before)), names(after.gone_since(&before))), (vec![], vec![]));
        assert_eq!(after, before);

        after.get_mut(&user("bob")).unwrap().slot = MemberSlot(9);
        after.remove(&user("eve"));
        after.insert(user("max"), member(4));
        assert_eq!(names(after.changed_since(&before)), ["bob", "max"]);
        assert_eq!(names(after.gone_since(&before)), ["eve"]);
        assert_ne!(after, before);
        assert_eq!(before.get(&user("bob")).unwrap().slot, MemberSlot(1), "the original is as it was");

        // A value that was changed back is equal, though it is another copy.
        let mut back = before.clone();
        back.get_mut(&user("bob")).unwrap().slot = MemberSlot(9);
        back.get_mut(&user("bob")).unwrap().slot = MemberSlot(1);
        assert_eq!((names(back.changed_since(&before)), &back), (vec![], &before));
    }

    #[test]
    fn who_is_not_there_is_no_reason_for_a_copy() {
        let mut members = Members::default();
        members.insert(user("ann"), member(1));
        let before = members.clone();
        assert!(members.get_mut(&user("bob")).is_none());
        members.remove(&user("bob"));
        assert!(Arc::ptr_eq(&members.0, &before.0));
    }
}
