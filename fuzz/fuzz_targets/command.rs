//! One line of a control connection: a command, or one well-formed reply that refuses it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringftpd::proto::command;
use ringftpd::proto::reply::{Code, Reply, quoted};

fuzz_target!(|line: &[u8]| {
    match command::parse(line) {
        Ok(command) => {
            let _ = command.verb();
            let _ = format!("{command:?}");
        }
        Err(error) => {
            let reply = Reply::from(error);
            assert!((500..=599).contains(&reply.code().number()));
            check(&reply);
        }
    }
    // The same bytes as a name in replies: nothing in it can end a line or look like a last line.
    check(&Reply::text(Code::PATHNAME, quoted(line)));
    check(&Reply::lines(
        Code::FILE_ACTION_OK,
        "Listing:",
        vec![line.to_vec()],
        "End.",
    ));
});

/// RFC 959 §4.2: on the wire it is exactly one reply.
fn check(reply: &Reply) {
    let mut wire = Vec::new();
    reply.encode(&mut wire);
    let code = reply.code().number().to_string();
    let lines: Vec<&[u8]> = wire
        .strip_suffix(b"\r\n")
        .expect("the end of a line")
        .split(|&byte| byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .collect();
    let last = lines.len() - 1;
    for (index, line) in lines.iter().enumerate() {
        assert!(!line.iter().any(u8::is_ascii_control));
        let ends = line.starts_with(code.as_bytes()) && line.get(3) == Some(&b' ');
        assert_eq!(ends, index == last);
    }
}
