//! How daemons divide the leases: what is free is taken, and who holds two more than another gives one to it when
//! it is asked. Pure: who holds what is read before, and what follows is done after.
//!
//! Dividing comes to an end. A lease moves only from a holder to one that has at least two fewer, so the sum of the
//! squares of what each holds falls with every move, and it is a whole number.

use std::collections::BTreeMap;

use crate::db::{Holder, LeaseName, Standing};

/// What one daemon does after a look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Moves {
    /// Free, and asked for by us or by nobody.
    pub(super) take: Vec<LeaseName>,
    /// Ours, and one who has fewer asks for it.
    pub(super) give: Option<LeaseName>,
    /// Another's, who has more.
    pub(super) ask: Option<LeaseName>,
}

/// `able`: the leases that this daemon's configuration can serve.
pub(super) fn moves(me: Holder, able: &[LeaseName], standing: &Standing) -> Moves {
    let mut loads: BTreeMap<Holder, usize> = BTreeMap::new();
    for holder in standing.held.values() {
        *loads.entry(*holder).or_default() += 1;
    }
    let load = |holder: Holder| loads.get(&holder).copied().unwrap_or(0);
    let others_ask = |name: &LeaseName| standing.asked.get(name).into_iter().flatten().copied().filter(|holder| *holder != me);
    let we_ask = |name: &LeaseName| standing.asked.get(name).is_some_and(|askers| askers.contains(&me));
    // What was given is for whoever asked for it; of several who did, the lock lets one in.
    let is_for_us = |name: &LeaseName| we_ask(name) || others_ask(name).next().is_none();
    let take = able.iter().copied().filter(|name| !standing.held.contains_key(name) && is_for_us(name)).collect();
    let mut mine = standing.held.iter().filter(|(_, holder)| **holder == me).map(|(name, _)| *name);
    let give = mine.find(|name| others_ask(name).any(|holder| load(holder) + 2 <= load(me)));
    // Of those who have the most, so that the first move helps most; chains before the house.
    let asked_of = standing.held.iter().filter(|(name, holder)| **holder != me && able.contains(name) && load(me) + 2 <= load(**holder));
    let ask = asked_of.max_by_key(|(name, holder)| (load(**holder), **name)).map(|(name, _)| *name);
    Moves { take, give, ask }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::ChainId;

    fn chain(id: u64) -> LeaseName {
        LeaseName::Chain(ChainId::new(id).unwrap())
    }

    /// A daemon with what it can serve.
    type Daemon = (Holder, Vec<LeaseName>);

    /// Lets each look and move in turn until nobody moves; gives back how many leases moved.
    fn settle(daemons: &[Daemon], standing: &mut Standing) -> usize {
        let mut moved = 0;
        for _ in 0..1_000 {
            let mut quiet = true;
            for (me, able) in daemons {
                let next = moves(*me, able, standing);
                for name in next.take {
                    standing.held.insert(name, *me);
                    (moved, quiet) = (moved + 1, false);
                }
                if let Some(name) = next.give {
                    assert_eq!(standing.held.remove(&name), Some(*me), "only what is ours is given");
                    quiet = false;
                }
                let asked = next.ask.into_iter().collect::<Vec<_>>();
                for askers in standing.asked.values_mut() {
                    askers.retain(|holder| holder != me);
                }
                for name in asked {
                    assert_ne!(standing.held.get(&name), Some(me));
                    standing.asked.entry(name).or_default().push(*me);
                    quiet = quiet && !standing.held.contains_key(&name);
                }
                standing.asked.retain(|_, askers| !askers.is_empty());
            }
            if quiet && standing.asked.is_empty() {
                return moved;
            }
        }
        panic!("it goes on for ever: {standing:?}");
    }

    fn loads(daemons: &[Daemon], standing: &Standing) -> Vec<usize> {
        daemons.iter().map(|(me, _)| standing.held.values().filter(|holder| *holder == me).count()).collect()
    }

    #[test]
    fn y3_leases_are_divided_evenly_and_then_stay_where_they_are() {
        for (daemons, chains) in [(1, 5), (2, 1), (2, 2), (2, 5), (3, 5), (3, 9), (5, 3), (7, 40)] {
            let able: Vec<LeaseName> = std::iter::once(LeaseName::House).chain((1..=chains).map(chain)).collect();
            let all: Vec<Daemon> = (1..=daemons).map(|pid| (Holder(pid), able.clone())).collect();
            let mut standing = Standing::default();
            // They come one after the other, so the first has everything.
            for present in 1..=all.len() {
                settle(&all[..present], &mut standing);
            }
            let spread = loads(&all, &standing);
            assert_eq!(spread.iter().sum::<usize>(), able.len(), "{daemons} daemons, {chains} chains: {spread:?}");
            assert!(spread.iter().max().unwrap() - spread.iter().min().unwrap() <= 1, "{spread:?}");
            assert_eq!(settle(&all, &mut standing), 0, "and nothing moves any more");
            // One dies: the others take over what it had.
            if daemons > 1 {
                standing.held.retain(|_, holder| *holder != Holder(1));
                settle(&all[1..], &mut standing);
                let spread = loads(&all[1..], &standing);
                assert_eq!(spread.iter().sum::<usize>(), able.len());
                assert!(spread.iter().max().unwrap() - spread.iter().min().unwrap() <= 1, "{spread:?}");
            }
        }
    }

    #[test]
    fn y3_what_only_one_can_serve_stays_with_it() {
        let wide = (Holder(1), vec![LeaseName::House, chain(1), chain(2), chain(3)]);
        let narrow = (Holder(2), vec![chain(1)]);
        let mut standing = Standing::default();
        settle(std::slice::from_ref(&wide), &mut standing);
        let all = [wide, narrow];
        assert_eq!(settle(&all, &mut standing), 1);
        assert_eq!(standing.held[&chain(1)], Holder(2));
        assert_eq!(settle(&all, &mut standing), 0);
    }

    #[test]
    fn y3_what_was_given_is_not_taken_back_before_who_asked_has_it() {
        let able = [LeaseName::House, chain(1)];
        let mut standing = Standing::default();
        standing.held.insert(LeaseName::House, Holder(1));
        standing.asked.insert(chain(1), vec![Holder(2)]);
        assert_eq!(moves(Holder(1), &able, &standing).take, []);
        assert_eq!(moves(Holder(2), &able, &standing).take, [chain(1)]);
        // Two asked: both try, and the lock lets one in.
        standing.asked.insert(chain(1), vec![Holder(2), Holder(3)]);
        for asker in [2, 3] {
            assert_eq!(moves(Holder(asker), &able, &standing).take, [chain(1)]);
        }
    }
}
