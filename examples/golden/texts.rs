//! Which texts of the kernels a case runs.

use dqrm::engine::gpu::GpuAdapter;
use dqrm::plan::variant::{Choice, Picks, Traits, Variant, choose};
use dqrm::plan::{Command, Plan};
use dqrm::tune::Chooser;
use std::collections::BTreeMap;

/// Which texts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Texts {
    /// Those that any run on the adapter gets.
    Best,
    /// The kernels' own.
    Portable,
    /// This one wherever the adapter can run it, elsewhere the kernels' own.
    Only(&'static Variant),
}

/// Makes a session run them, and notes what it ran.
#[derive(Debug)]
pub(crate) struct Forced {
    pub(crate) texts: Texts,
    /// A graphics adapter has asked.
    pub(crate) asked: bool,
    /// Commands that run another text than their kernel's own.
    pub(crate) varied: usize,
    /// All variants of the kernels that the plans have: why the adapter runs one for no command, if that is so.
    pub(crate) unfit: BTreeMap<&'static str, Option<String>>,
    /// A command that cannot be told from one that gets another text.
    pub(crate) mistaken: Option<String>,
}

impl Forced {
    pub(crate) fn new(texts: Texts) -> Forced {
        Forced { texts, asked: false, varied: 0, unfit: BTreeMap::new(), mistaken: None }
    }

    fn wanted(&self, traits: &Traits, command: &Command) -> Option<&'static Variant> {
        let choice = match self.texts {
            Texts::Best => Choice::Best,
            Texts::Portable => Choice::Portable,
            Texts::Only(variant) => Choice::Only(variant.name),
        };
        choose(traits, command, choice)
    }

    fn note(&mut self, traits: &Traits, command: &Command) {
        for variant in command.kernel.variants {
            let reason = self.unfit.entry(variant.name).or_insert_with(|| Some(reason(traits, variant)));
            if variant.can_run(traits, command) {
                *reason = None;
            }
        }
    }
}

/// Why an adapter with these traits runs `variant` for no command, should that be so.
fn reason(traits: &Traits, variant: &Variant) -> String {
    match (variant.subgroup, traits.subgroups) {
        (Some(size), None) => format!("needs subgroups of {size}, the adapter has none"),
        (Some(size), Some((least, most))) if !size.fit((least, most)) => {
            format!("needs subgroups of {size}, the adapter's are of {least} to {most}")
        }
        _ if !variant.has_features(traits) => "needs cooperative matrices, which the adapter does not have".into(),
        _ => "suits no command of these cases".into(),
    }
}

impl Chooser for Forced {
    fn picks(&mut self, adapter: &GpuAdapter, plan: &Plan) -> Picks {
        let traits = &adapter.traits;
        let commands = || plan.phases.iter().flat_map(|p| &p.commands);
        let mut picks = Picks::default();
        // no pick means the best, which commands of one key need not share
        for command in commands().filter(|_| self.texts != Texts::Best) {
            picks.set(command, self.wanted(traits, command).map_or(command.kernel.name, |v| v.name));
        }
        self.asked = true;
        for command in commands() {
            let taken = choose(traits, command, Choice::Picked(&picks));
            self.varied += usize::from(taken.is_some());
            if taken != self.wanted(traits, command) {
                self.mistaken = Some(command.label.to_string());
            }
            self.note(traits, command);
        }
        picks
    }
}
