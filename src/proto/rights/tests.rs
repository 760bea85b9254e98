//! Patterns, rules, and what a rename may do, against the rules themselves.

use super::*;

fn path(text: &str) -> VirtualPath {
    VirtualPath::root().join(text.as_bytes()).unwrap()
}

#[test]
fn patterns_cover_what_is_below() {
    for (pattern, covered, not_covered) in [
        (
            "/pub",
            &["/pub", "/pub/a", "/pub/a/b"][..],
            &["/", "/public", "/a/pub"][..],
        ),
        (
            "*.exe",
            &["/a.exe", "/x/y.exe", "/d.exe/z", "/.exe"],
            &["/exe", "/a.exe.txt"],
        ),
        (
            ".*",
            &["/.ssh", "/a/.x", "/.ssh/key"],
            &["/a.b", "/", ".", "./a"],
        ),
        (
            "/home/*/private",
            &["/home/a/private", "/home/a/private/x"],
            &["/home/private", "/home/a/b/private"],
        ),
        (
            "/a/**/z",
            &["/a/z", "/a/b/z", "/a/b/c/z/d"],
            &["/z", "/a", "/b/a/z"],
        ),
        ("a/b", &["/a/b", "/x/a/b", "/a/a/b/c"], &["/a/x/b", "/b"]),
        ("/", &["/", "/a"], &[]),
        ("/a/**", &["/a", "/a/b"], &["/b"]),
    ] {
        let pattern = Pattern::parse(pattern).unwrap();
        for path in covered {
            assert!(
                pattern.covers(&components(path.as_bytes())),
                "{pattern:?} {path}"
            );
        }
        for path in not_covered {
            assert!(
                !pattern.covers(&components(path.as_bytes())),
                "{pattern:?} {path}"
            );
        }
    }
    for text in ["", "**", "/../a", "a/./b", &"x".repeat(1025)] {
        assert_eq!(Pattern::parse(text), None, "{text}");
    }
}

#[test]
fn a_pattern_made_to_blow_up_does_not() {
    let pattern = Pattern::parse(&"**/a/".repeat(64)).unwrap();
    let long = "/a".repeat(2000) + "/b";
    let many = "**/b/a/".repeat(64);
    assert!(pattern.covers(&components(long.as_bytes())));
    assert!(
        !Pattern::parse(&many)
            .unwrap()
            .covers(&components(long.as_bytes()))
    );
}

#[test]
fn rules_are_parsed_and_the_later_ones_count() {
    let mut rights = Rights::from(RightSet::READ_WRITE);
    for text in [
        "/pub read-only",
        "/pub/in coming upload-only +list",
        "*.exe -create -overwrite",
        "/pub/tools +create",
    ] {
        rights.rules.push(Rule::parse(text).unwrap());
    }
    rights.hidden.push(Pattern::parse(".*").unwrap());
    let may = |at: &str, right| rights.check(&path(at), right);
    assert_eq!(may("/x", Right::Delete), Ok(()));
    assert_eq!(may("/pub/x", Right::Delete), Err(Failure::Denied));
    assert_eq!(may("/pub/x", Right::Read), Ok(()));
    assert_eq!(may("/pub/in coming/x", Right::Create), Ok(()));
    assert_eq!(may("/pub/in coming/x", Right::List), Ok(()));
    assert_eq!(may("/pub/in coming/x", Right::Read), Err(Failure::Denied));
    assert_eq!(may("/x.exe", Right::Create), Err(Failure::Denied));
    assert_eq!(may("/x.exe", Right::Delete), Ok(()));
    assert_eq!(may("/pub/tools/x.exe", Right::Create), Ok(()));
    assert_eq!(
        may("/pub/tools/x.exe", Right::Overwrite),
        Err(Failure::Denied)
    );
    assert_eq!(may("/.ssh/x", Right::Read), Err(Failure::NotFound));
    assert_eq!(may("/.ssh/x", Right::Create), Err(Failure::Denied));
    for text in [
        "/pub",
        "/pub readonly",
        "read-only",
        "/../x none",
        "/x +fly",
    ] {
        assert!(Rule::parse(text).is_err(), "{text}");
    }
}

#[test]
fn directories_with_rules_below_are_known() {
    let mut rights = Rights::from(RightSet::READ_WRITE);
    assert!(rights.are_the_same_below(&path("/a")));
    rights.rules.push(Rule::parse("/a/*/c none").unwrap());
    rights.rules.push(Rule::parse("*.exe -create").unwrap());
    for (at, same) in [
        ("/a", false),
        ("/a/b", false),
        ("/a/b/c", true),
        ("/b", true),
        ("/a/b/d", true),
    ] {
        assert_eq!(rights.are_the_same_below(&path(at)), same, "{at}");
    }
    rights.hidden.push(Pattern::parse("/**/x/y").unwrap());
    assert!(!rights.are_the_same_below(&path("/b")));
}

fn with(rules: &[&str], hidden: &[&str]) -> Rights {
    let mut rights = Rights::from(RightSet::READ_WRITE);
    rights.rules = rules
        .iter()
        .map(|text| Rule::parse(text).unwrap())
        .collect();
    rights.hidden = hidden
        .iter()
        .map(|text| Pattern::parse(text).unwrap())
        .collect();
    rights
}

#[test]
fn a_new_name_gives_no_right_that_the_old_one_lacks() {
    let rules = |rules: &[&str]| with(rules, &[]);
    for (rights, from, to, expected) in [
        (rules(&[]), "/a", "/b", true),
        (rules(&["*.log -delete"]), "/f.log", "/f.txt", false),
        (rules(&["*.log -delete"]), "/f.log", "/g.log", true),
        (rules(&["*.log -delete"]), "/f.txt", "/f.log", true),
        (rules(&["*.log -delete"]), "/d/e", "/e", true),
        (
            rules(&["/c/[a-c]?.txt -read"]),
            "/c/a1.txt",
            "/c/zz.txt",
            false,
        ),
        (
            rules(&["/c/[a-c]?.txt -read"]),
            "/c/zz.txt",
            "/zz.txt",
            true,
        ),
        (rules(&["deep/x read-only"]), "/q/deep", "/q/other", false),
        (rules(&["deep/x read-only"]), "/q/deep", "/r/deep", true),
        (rules(&["deep/x read-only"]), "/q/other", "/q/deep", true),
        (rules(&["deep/x read-only"]), "/q", "/r", true),
        (rules(&["/**/deep/x -mkdir"]), "/deep", "/d", false),
        (rules(&["/a/b +read"]), "/a", "/z", true),
        (rules(&["/pub/docs read-only"]), "/a", "/b", true),
        (rules(&["/pub/docs read-only"]), "/a", "/pub", true),
        (rules(&["/in upload-only"]), "/a", "/in/a", true),
        (rules(&["/in upload-only +rename"]), "/in/a", "/a", false),
        // A right that is given below the new name only, or by another rule than before.
        (
            rules(&["/ -read", "/free/*/x +read"]),
            "/a",
            "/free/a",
            false,
        ),
        (
            rules(&["deep/x -delete", "/free +delete"]),
            "/deep",
            "/free/deep",
            false,
        ),
        (
            rules(&["/ -read", "x/y +read", "/c -read"]),
            "/c/x",
            "/e/x",
            false,
        ),
        (with(&[], &["secret/plan"]), "/q/secret", "/q/open", false),
        (with(&[], &["secret/plan"]), "/q/secret", "/secret", true),
        (with(&[], &["secret/plan", ".*"]), "/q/open", "/open", true),
        (with(&[], &["/**/x/y"]), "/a/x", "/a/z", false),
        (with(&[], &["/**/x/y"]), "/a/b", "/c", true),
    ] {
        assert_eq!(
            rights.may_become(&path(from), &path(to)),
            expected,
            "{from} {to} {rights:?}"
        );
    }
}

/// The same for all short paths and small sets of rules, against what the rules say of each path.
#[test]
fn no_move_that_is_allowed_gives_a_right_to_anything_below() {
    let patterns = ["/a", "/a/b", "a/b", "b", "*/b", "/**/b/a", "/b/**/a"];
    let changes = ["-read", "+read", "none", "read-only"];
    let rules: Vec<String> = patterns
        .iter()
        .flat_map(|pattern| changes.map(|change| format!("{pattern} {change}")))
        .collect();
    let names = ["a", "b", "c"];
    let mut paths: Vec<String> = names.map(|name| format!("/{name}")).into();
    for parent in names.map(|name| format!("/{name}")) {
        paths.extend(names.map(|name| format!("{parent}/{name}")));
    }
    let mut allowed = 0;
    for (first, second) in rules
        .iter()
        .flat_map(|first| rules.iter().map(move |second| (first, second)))
    {
        let mut rights = with(&[first, second], &[]);
        rights.everywhere = RightSet::READ_WRITE.without(Right::Delete);
        for (from, to) in paths
            .iter()
            .flat_map(|from| paths.iter().map(move |to| (from, to)))
        {
            if !rights.may_become(&path(from), &path(to)) {
                continue;
            }
            allowed += 1;
            for below in std::iter::once("").chain(paths.iter().map(String::as_str)) {
                let old = rights.at(format!("{from}{below}").as_bytes());
                let new = rights.at(format!("{to}{below}").as_bytes());
                assert!(old.includes(new), "{from} {to} {below} {rights:?}");
            }
        }
    }
    assert!(allowed > 10_000, "{allowed}");
}
