//! What a path loses: where its loss model is.
//!
//! The model of Gilbert (1960) and Elliott (1963) has two states, good and bad, and loses in each with a probability of its own. Its states change
//! *packet by packet*, as the model was first written down, so that a burst is so many packets long, however far these are apart; or *in time*, so that a burst
//! lasts so long, whoever sends into it: then a packet that is sent again soon is probably lost again, and one that is sent after a while is not.

use std::collections::VecDeque;

use crate::{
    dice::Dice,
    scenario::{Loss, Time},
};

/// Where the loss model of one path is.
#[derive(Clone, Default, Debug)]
pub struct LossState {
    /// Whether it is bad: after the last packet, or, if states change in time, before the first of the switches.
    bad: bool,
    /// When the state changes: all that has been drawn and is not over. Empty until somebody asks, and, in time, never again.
    switches: VecDeque<Time>,
}

impl LossState {
    /// Whether a packet that is sent `at` is lost. It may be asked about any time from `now` on, and `now` never goes back.
    pub fn loses(&mut self, loss: &Loss, dice: &mut Dice, now: Time, at: Time) -> bool {
        match *loss {
            Loss::Bernoulli(p) => dice.chance(p),
            Loss::GilbertElliott { p, r, good, bad } => {
                let lost = dice.chance(if self.bad { bad } else { good });
                self.bad = if self.bad { !dice.chance(r) } else { dice.chance(p) };
                lost
            }
            Loss::GilbertElliottInTime { mean_good, mean_bad, good, bad } => {
                let is_bad = self.is_bad([mean_good, mean_bad], dice, now, at);
                dice.chance(if is_bad { bad } else { good })
            }
        }
    }

    /// Whether the state is bad at a time: stretches of either state are exponential, with these means, and the first is drawn as it is in the long run.
    fn is_bad(&mut self, means: [f64; 2], dice: &mut Dice, now: Time, at: Time) -> bool {
        let stretch = |bad: bool, dice: &mut Dice| (means[usize::from(bad)] * dice.exponential() + 0.5) as Time;
        if self.switches.is_empty() {
            self.bad = dice.chance(1.0 / (1.0 + means[0] / means[1]));
            self.switches.push_back(now.saturating_add(stretch(self.bad, dice)));
        }
        while let Some(last) = self.switches.back().copied().filter(|last| *last <= at) {
            // An even number of switches ends in the state that there was before them.
            let after = self.bad == self.switches.len().is_multiple_of(2);
            self.switches.push_back(last.saturating_add(stretch(after, dice)));
        }
        while self.switches.front().is_some_and(|first| *first <= now) {
            self.switches.pop_front();
            self.bad = !self.bad;
        }
        let over = self.switches.iter().take_while(|switch| **switch <= at).count();
        self.bad == over.is_multiple_of(2)
    }
}
