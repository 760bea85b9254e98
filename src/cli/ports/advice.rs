//! What to change in `[data]`, from a [`Report`], with the arithmetic: the rules in their order, and
//! their text. The rules themselves are in `sizing` (ports and waits) and `rules` (the rest).

use std::fmt::Write;

use super::rules;
use super::sizing;
use super::text::{age, counted, paragraph, percent, percent_text, quantile};
use crate::data::report::{CoreReport, Histogram, PoolReport, RangeReport, Report};

/// One thing to do, or to know.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Advice {
    pub(super) rule: Rule,
    /// What to do, in a sentence.
    pub(super) what: String,
    /// Why, and with which figures; a paragraph each.
    pub(super) why: Vec<String>,
    /// The line of the configuration.
    pub(super) setting: Option<String>,
}

/// What led to an advice.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Rule {
    TooShort,
    AddressUnknown,
    Unavailable,
    AddPorts,
    ClientLimit,
    Uneven,
    LowerTimeout,
    RaiseTimeout,
    Strangers,
    ActiveFailed,
    SourcePort,
    Bounces,
    Shrink,
    Healthy,
}

/// A report with what the rules want to know of it all.
#[derive(Debug)]
pub(super) struct Facts<'r> {
    pub(super) report: &'r Report,
    pub(super) pools: Vec<Pool<'r>>,
    /// The sums over all pools.
    pub(super) sums: Sums,
    /// All waits.
    pub(super) waits: Histogram,
    /// The server has run for long enough, and was used enough, to judge from shares.
    pub(super) enough: bool,
}

/// The ports of one core on one address.
#[derive(Debug)]
pub(super) struct Pool<'r> {
    pub(super) core: &'r CoreReport,
    pub(super) report: &'r PoolReport,
    pub(super) sums: Sums,
}

/// Figures of several ranges, added up.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sums {
    pub(super) ports: usize,
    /// Not less than the most at a time: the ranges need not have had theirs together.
    pub(super) high_water: usize,
    pub(super) handed_out: u64,
    pub(super) used: u64,
    pub(super) abandoned: u64,
    pub(super) strangers: u64,
    pub(super) stale: u64,
}

impl Advice {
    pub(super) fn new(rule: Rule, what: impl Into<String>) -> Self {
        Self {
            rule,
            what: what.into(),
            why: Vec::new(),
            setting: None,
        }
    }

    pub(super) fn why(mut self, why: impl Into<String>) -> Self {
        self.why.push(why.into());
        self
    }

    pub(super) fn setting(mut self, setting: impl Into<String>) -> Self {
        self.setting = Some(setting.into());
        self
    }
}

impl<'r> Facts<'r> {
    pub(super) fn of(report: &'r Report) -> Self {
        let pools: Vec<Pool<'r>> = report
            .cores
            .iter()
            .flat_map(|core| core.pools.iter().map(move |pool| (core, pool)))
            .map(|(core, report)| Pool {
                core,
                report,
                sums: Sums::of(&report.ranges),
            })
            .collect();
        let mut sums = Sums::default();
        let mut waits = Histogram::default();
        for pool in &pools {
            sums.add(&pool.sums);
            waits.add(&pool.report.waits);
        }
        let long = report.uptime_seconds >= UPTIME_SECONDS_MIN;
        Self {
            report,
            pools,
            enough: long && sums.used + sums.abandoned >= RESERVATIONS_MIN,
            sums,
            waits,
        }
    }
}

impl Sums {
    pub(super) fn of(ranges: &[RangeReport]) -> Self {
        let mut sums = Self::default();
        for range in ranges {
            sums.add(&Self {
                ports: range.ports,
                high_water: range.high_water,
                handed_out: range.handed_out,
                used: range.used,
                abandoned: range.abandoned,
                strangers: range.strangers,
                stale: range.stale,
            });
        }
        sums
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.ports += other.ports;
        self.high_water += other.high_water;
        self.handed_out += other.handed_out;
        self.used += other.used;
        self.abandoned += other.abandoned;
        self.strangers += other.strangers;
        self.stale += other.stale;
    }

    /// The share of the reservations that ended without their client, 0 to 1.
    pub(super) fn abandoned_share(&self) -> f64 {
        percent(self.abandoned, self.used + self.abandoned) / 100.0
    }
}

/// What to change, the most urgent first; never empty.
pub(super) fn advise(report: &Report) -> Vec<Advice> {
    let facts = Facts::of(report);
    let uneven = rules::uneven(&facts);
    let raise = sizing::raise_timeout(&facts);
    let lower = match raise {
        Some(_) => None,
        None => sizing::lower_timeout(&facts),
    };
    let others: Vec<Rule> = [&uneven, &lower]
        .into_iter()
        .flatten()
        .map(|advice| advice.rule)
        .collect();
    let ports = sizing::add_ports(&facts, &others);
    let shrink = match ports {
        Some(_) => None,
        None => sizing::shrink(&facts),
    };
    let advice = [
        rules::address_unknown(&facts),
        rules::unavailable(&facts),
        ports,
        rules::client_limit(&facts),
        uneven,
        lower,
        raise,
        rules::strangers(&facts),
        rules::active_failed(&facts),
        rules::source_port(&facts),
        rules::bounces(&facts),
        shrink,
    ];
    let mut advice: Vec<Advice> = advice.into_iter().flatten().collect();
    if !facts.enough {
        advice.insert(0, too_short(&facts, advice.is_empty()));
    } else if advice.is_empty() {
        advice.push(healthy(&facts));
    }
    advice
}

fn too_short(facts: &Facts<'_>, alone: bool) -> Advice {
    let rest = match alone {
        true => "Nothing else is wrong so far.",
        false => "What follows holds all the same.",
    };
    Advice::new(
        Rule::TooShort,
        "It is too early to judge ports and timeouts; ask again later.",
    )
    .why(format!(
        "Up for {}, with {} ended; wanted are {} and {RESERVATIONS_MIN}. {rest}",
        age(facts.report.uptime_seconds),
        counted(facts.sums.used + facts.sums.abandoned, "reservation"),
        age(UPTIME_SECONDS_MIN),
    ))
}

fn healthy(facts: &Facts<'_>) -> Advice {
    let sums = &facts.sums;
    let fullest = facts
        .pools
        .iter()
        .max_by_key(|pool| pool.sums.high_water * 1000 / pool.sums.ports.max(1));
    let fullest = fullest.map_or_else(String::new, |pool| {
        format!(
            " At most {} waited at a time on the {} of core {} ({}).",
            counted(pool.sums.high_water as u64, "reservation"),
            counted(pool.sums.ports as u64, "port"),
            pool.core.core,
            pool.report.address,
        )
    });
    let refused: u64 = facts.pools.iter().map(|p| p.report.refusals.all()).sum();
    Advice::new(Rule::Healthy, "Nothing needs to be changed.").why(format!(
        "In {}, {} handed out and {refused} refused; {} of them were used, {} ({}) abandoned.{fullest} \
         Clients came after: p50 {}, p99 {}; accept_timeout is {} s. {} and {} were reset.",
        age(facts.report.uptime_seconds),
        counted(sums.handed_out, "port"),
        sums.used,
        sums.abandoned,
        percent_text(sums.abandoned_share() * 100.0),
        quantile(&facts.waits, 0.5),
        quantile(&facts.waits, 0.99),
        facts.report.settings.accept_timeout_ms as f64 / 1000.0,
        counted(sums.strangers, "stranger"),
        counted(sums.stale, "stale connection"),
    ))
}

/// Numbered, in lines of [`WIDTH`] characters.
pub(super) fn text(advice: &[Advice]) -> String {
    let mut out = String::new();
    for (index, advice) in advice.iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        let number = format!("{}. ", index + 1);
        let indent = " ".repeat(number.len() + 2);
        out.push_str(&paragraph(&number, &advice.what, WIDTH));
        for why in &advice.why {
            out.push_str(&paragraph(&indent, why, WIDTH));
        }
        if let Some(setting) = &advice.setting {
            // Writing to a String does not fail.
            let _ = writeln!(out, "{indent}=> {setting}");
        }
    }
    out
}

/// Less says little of what a day is like.
const UPTIME_SECONDS_MIN: u64 = 600;

/// Fewer make no shares to count on.
const RESERVATIONS_MIN: u64 = 100;

/// Characters in a line: those of the narrowest terminal in use.
const WIDTH: usize = 80;

#[cfg(test)]
mod tests;
