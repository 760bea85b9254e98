//! Looks at what a server sends, byte for byte and name for name.

use std::fs;
use std::io::Read;
use std::path::Path;

use serde_json::{Value, json};

use crate::client::fleet::{COMPLETE, Fleet};
use crate::client::{Doing, Error, Result, Target, Via, Wire};
use crate::files::{self, Repeats};

/// Downloads a file, which must have the pattern.
pub(crate) fn file(target: &Target, via: Via, name: &str, size: u64) -> Result<()> {
    let mut fleet = Fleet::log_in(target, 1, via)?;
    let line = format!("RETR {name}\r\n").into_bytes();
    receive(&mut fleet, &line, |wire| {
        files::compare(wire, size, Repeats::Never).doing(name)
    })?;
    fleet.quit()
}

/// Lists a directory in all ways. Returns how many bytes each listing has, and whether LIST
/// and NLST are sorted by the bytes of names: RFC 3659 §7 has clients of MLSD sort for themselves.
pub(crate) fn listings(target: &Target, directory: &str, names: &Path) -> Result<Value> {
    let doing = names.to_string_lossy();
    let names = fs::read_to_string(names).doing(&doing)?;
    let mut names: Vec<&str> = names.lines().collect();
    names.sort_unstable();
    let mut fleet = Fleet::log_in(target, 1, Via::Epsv)?;
    fleet.command(format!("CWD {directory}\r\n").as_bytes(), &[250, 200])?;
    let has_mlsd = has(&mut fleet, b"MLSD")?;
    let mut sorted = true;
    let mut listing = |verb: &str, name_of: fn(&str) -> Option<&str>| -> Result<usize> {
        let mut text = String::new();
        receive(&mut fleet, format!("{verb}\r\n").as_bytes(), |wire| {
            wire.read_to_string(&mut text).map(drop).doing(verb)
        })?;
        let mut found = Vec::with_capacity(names.len());
        for line in text.split_inclusive('\n') {
            let line = line.strip_suffix("\r\n");
            let line = line.ok_or_else(|| Error::new(format!("{verb}: a line without CR LF")))?;
            found.extend(name_of(line));
        }
        sorted &= verb == "MLSD" || found.is_sorted();
        same(verb, found, &names)?;
        Ok(text.len())
    };
    let list = listing("LIST", list_name)?;
    let mlsd = match has_mlsd {
        true => Some(listing("MLSD", mlsd_name)?),
        false => None,
    };
    let nlst = listing("NLST", nlst_name)?;
    fleet.quit()?;
    Ok(json!({ "LIST": list, "MLSD": mlsd, "NLST": nlst, "sorted": sorted }))
}

/// RFC 3659 §7.8: whoever has MLSD says so in its features, as MLST.
fn has(fleet: &mut Fleet, verb: &[u8]) -> Result<bool> {
    let reply = fleet.ask_first(b"FEAT\r\n", &[211, 500, 502])?;
    let feature = match verb {
        b"MLSD" => b"MLST",
        other => other,
    };
    Ok(reply.windows(feature.len()).any(|part| part == feature))
}

/// One transfer by plain reads.
fn receive(
    fleet: &mut Fleet,
    line: &[u8],
    read: impl FnOnce(&mut Wire) -> Result<()>,
) -> Result<()> {
    fleet.start(&[line])?;
    let (control, transfer) = fleet.session(0);
    let wire = transfer.wire.as_mut();
    read(wire.ok_or_else(|| Error::new("no data connection"))?)?;
    transfer.close()?;
    control.expect(line, COMPLETE).map(drop)
}

fn same(verb: &str, mut found: Vec<&str>, names: &[&str]) -> Result<()> {
    found.sort_unstable();
    if found == names {
        return Ok(());
    }
    let wrong = found.iter().zip(names).find(|(found, name)| found != name);
    let wrong = wrong.map_or_else(String::new, |(found, name)| {
        format!(", the first difference: {found:?} for {name:?}")
    });
    let (found, names) = (found.len(), names.len());
    Err(Error::new(format!(
        "{verb}: {found} names for {names}{wrong}"
    )))
}

/// The name in a line as ls(1) writes it: after eight columns, of which each ends with a space.
fn list_name(line: &str) -> Option<&str> {
    let mut rest = line;
    for _ in 0..8 {
        let (_, after) = rest.split_once(' ')?;
        rest = after.trim_start_matches(' ');
    }
    let name = match line.starts_with('l') {
        true => rest.split_once(" -> ").map_or(rest, |(name, _)| name),
        false => rest,
    };
    nlst_name(name)
}

/// RFC 3659 §7.2: facts, a space, the name.
fn mlsd_name(line: &str) -> Option<&str> {
    let (facts, name) = line.split_once(' ')?;
    let facts = facts.to_ascii_lowercase();
    let is_entry = !facts.contains("type=cdir") && !facts.contains("type=pdir");
    is_entry.then_some(name)
}

fn nlst_name(name: &str) -> Option<&str> {
    (name != "." && name != "..").then_some(name)
}
