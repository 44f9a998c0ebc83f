//! Tests of the output in a terminal: no line is wider than the terminal, and no text of a record
//! can control the terminal.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    num::NonZero,
    os::fd::OwnedFd,
    process::Stdio,
    thread,
};

use rustix::{
    fs::{Mode, OFlags},
    pty::OpenptFlags,
    termios::Winsize,
};
use serde_json::{Value, json};
use unicode_width::UnicodeWidthStr as _;

use crate::harness::{Server, Site, credential};

const ROWS: u16 = 500;
/// Text that would change the title, clear the screen, and ring the bell.
const HOSTILE: &str = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m\u{202e}x\u{7f}\r\n";

/// The screen of a terminal after a command.
struct Shown {
    bytes: Vec<u8>,
    screen: vt100::Parser,
    succeeded: bool,
}

impl Shown {
    fn text(&self) -> String {
        self.screen.screen().contents()
    }

    fn rows(&self) -> Vec<String> {
        let (_, width) = self.screen.screen().size();
        self.screen.screen().rows(0, width.get()).collect()
    }
}

/// Runs a command in a terminal of this width.
fn run(site: &Site, args: &[&str], width: u16, variables: &[(&str, &str)]) -> Shown {
    run_with_input(site, args, width, variables, "")
}

fn run_with_input(
    site: &Site,
    args: &[&str],
    width: u16,
    variables: &[(&str, &str)],
    input: &str,
) -> Shown {
    let (terminal, program) = pseudo_terminal(width);
    let mut command = site.command(args);
    command.env("TERM", "xterm-256color").envs(variables.iter().copied());
    command.stdout(program.try_clone().unwrap()).stderr(program);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    // The end of the program is the end of the stream only if this process has no other end.
    drop(command);
    let reader = thread::spawn(move || {
        let (mut bytes, mut part) = (Vec::new(), [0; 4096]);
        // A terminal without a program is an error, not the end of a file.
        while let Ok(read @ 1..) = File::from(terminal.try_clone().unwrap()).read(&mut part) {
            bytes.extend_from_slice(&part[..read]);
        }
        bytes
    });
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let succeeded = child.wait().unwrap().success();
    let bytes = reader.join().unwrap();
    let mut screen = vt100::Parser::new(cells(ROWS), cells(width), 0);
    screen.process(&bytes);
    Shown { bytes, screen, succeeded }
}

fn pseudo_terminal(width: u16) -> (OwnedFd, OwnedFd) {
    let terminal = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    rustix::pty::grantpt(&terminal).unwrap();
    rustix::pty::unlockpt(&terminal).unwrap();
    let name = rustix::pty::ptsname(&terminal, Vec::new()).unwrap();
    let size = Winsize { ws_row: ROWS, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&terminal, size).unwrap();
    let program = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    (terminal, program)
}

fn cells(number: u16) -> NonZero<u16> {
    NonZero::new(number).unwrap()
}

/// Checks that no line was wider than the terminal, and that the only control sequences are
/// colours.
fn assert_harmless(shown: &Shown, args: &[&str]) {
    let text = String::from_utf8(shown.bytes.clone()).unwrap();
    let mut rest = text.as_str();
    while let Some((_, after)) = rest.split_once('\u{1b}') {
        let colour = after.strip_prefix('[').and_then(|code| code.split_once('m'));
        let is_colour = colour.is_some_and(|(code, _)| code.bytes().all(|b| b.is_ascii_digit()));
        assert!(is_colour, "{args:?}: {text:?}");
        rest = after;
    }
    let is_harmful = |c: char| c.is_control() && !"\r\n\u{1b}".contains(c) || c == '\u{202e}';
    assert!(!text.contains(is_harmful), "{args:?}: {text:?}");
    let mut is_command = false;
    for (index, row) in shown.rows().into_iter().enumerate() {
        // A key and a command are copied, so they are never broken.
        let is_copied = row.contains("kw_") || is_command;
        is_command = row.starts_with("    printf") || is_command && !row.is_empty();
        let is_wrapped =
            shown.screen.screen().row_wrapped(index as u16) && !is_copied && !is_command;
        assert!(!is_wrapped, "{args:?}: {row}\n{}", shown.text());
    }
}

/// Creates a record through the admin API. If the server refuses the hostile text, a plain one is
/// sent.
fn create(server: &Server, path: &str, record: impl Fn(&str) -> Value) -> Value {
    let hostile = server.admin_api("POST", path).json(&record(HOSTILE)).send();
    if hostile.status == 201 {
        return hostile.json();
    }
    let plain = server.admin_api("POST", path).json(&record("plain")).send();
    assert_eq!(plain.status, 201, "{path}: {}", plain.body);
    plain.json()
}

/// A server with long, wide and hostile texts in its records. Returns the ids of two keys.
fn filled() -> (Server, Vec<String>) {
    let server = Server::new();
    create(
        &server,
        "/api/v1/roles",
        |text| json!({ "id": format!("r{}", "o".repeat(60)), "label": format!("編集者{text}") }),
    );
    let role = format!("r{}", "o".repeat(60));
    let mut keys = Vec::new();
    for name in names() {
        let user = json!({
            "name": name, "mail": format!("{}@example.com", "m".repeat(60)), "roles": [role],
            "attributes": { "note": HOSTILE },
        });
        let mut response = server.admin_api("POST", "/api/v1/users").json(&user).send();
        if response.status != 201 {
            let user = json!({ "name": name, "roles": [role] });
            response = server.admin_api("POST", "/api/v1/users").json(&user).send();
        }
        assert_eq!(response.status, 201, "{name}: {}", response.body);
        let uid = response.json()["uid"].clone();
        let key = create(&server, &format!("/api/v1/users/{uid}/keys"), |text| {
            let label: String = format!("🦙🦙 مرحبا {text} {}", "長".repeat(40));
            let label: String = label.chars().take(34).collect();
            json!({ "label": label, "networks": ["10.0.0.0/8", "2001:db8:1:2:3:4:5:6/128"] })
        });
        server.forbid_key_in_log(key["key"].as_str().unwrap());
        keys.push(key["id"].as_str().unwrap().to_owned());
    }
    create(
        &server,
        "/api/v1/applications",
        |text| json!({ "id": "partners", "name": format!("Partner 会社 {text}") }),
    );
    let resource = |text: &str| {
        json!({
            "id": "motd", "handler": "respond", "path": format!("/{}/{{id}}", "p".repeat(70)),
            "methods": ["GET", "POST", "DELETE"], "formats": ["any"], "authentication": ["*"],
            "respond": { "body": format!("{} {text}", "b".repeat(90)) },
        })
    };
    // The body of a response may have any character.
    let created = server.admin_api("POST", "/api/v1/resources").json(&resource(HOSTILE)).send();
    assert_eq!(created.status, 201, "{}", created.body);
    (server, keys)
}

fn names() -> [String; 4] {
    [
        "builder".to_owned(),
        "名".repeat(60),
        format!("{} x", "🦙".repeat(50)),
        format!("{} {}", "مرحبا".repeat(6), "e\u{301}".repeat(10)),
    ]
}

#[test]
fn no_command_shows_a_line_wider_than_the_terminal() {
    let (server, keys) = filled();
    let site = &server.site;
    let [_, wide, llamas, arabic] = names();
    let role = format!("r{}", "o".repeat(60));
    let credentials = site.path().join("headers");
    std::fs::write(&credentials, format!("API-KEY: {}\n", server.admin_credential())).unwrap();
    for width in [40, 80, 200] {
        let backup = format!("backup-{width}.keyward");
        let long = "長い名前".repeat(30);
        let new = format!("新しい{width} {}", "n".repeat(40));
        let commands: &[&[&str]] = &[
            &["user", "list"],
            &["user", "list", "--wide", "--limit", "0"],
            &["key", "list"],
            &["key", "list", &wide],
            &["key", "list", "--times", "absolute"],
            &["role", "list"],
            &["app", "list"],
            &["resource", "list"],
            &["audit", "list"],
            &["audit", "list", "--oldest-first", "--times", "absolute"],
            &["user", "show", &wide],
            &["user", "show", &llamas],
            &["key", "show", &keys[1]],
            &["key", "show", &keys[3]],
            &["role", "show", &role],
            &["app", "show", "partners"],
            &["resource", "show", "motd"],
            &["user", "add", &new, "--role", &role, "--blocked"],
            &["user", "edit", &new, "--mail", "a-very-long-address-of-a-user@example.com"],
            &["user", "block", &wide],
            &["user", "unblock", &wide],
            &["user", "block", &llamas],
            &["user", "unblock", &llamas],
            &["key", "generate", &arabic, "--label", "temporary", "--expires", "30d"],
            &["key", "edit", &keys[1], "--label", "長いラベル長いラベル長いラベル長いラベル"],
            &["key", "revoke", &keys[0]],
            &["role", "add", "temporary", "--label", &long],
            &["role", "edit", "temporary", "--grant", &"p".repeat(100)],
            &["role", "delete", "temporary", "--yes"],
            &["app", "disable", "partners"],
            &["app", "enable", "partners"],
            &["app", "edit", "partners", "--name", &long],
            &["resource", "disable", "motd"],
            &["resource", "enable", "motd"],
            &["resource", "edit", "motd", "--body", &long],
            &["user", "delete", &new, "--yes"],
            &["audit", "verify"],
            &["explain", "/user/1", "--headers", "headers"],
            &["healthcheck"],
            &["backup", &backup],
            // Errors.
            &["user", "show", &long],
            &["user", "add", &long],
            &["user", "list", "--role", &long],
            &["key", "list", "--sort", "colour"],
        ];
        for args in commands {
            let is_wide = args.contains(&"--wide");
            let shown = run(site, args, width, &[]);
            assert!(shown.text().trim().len() > 5 || is_wide, "{args:?} shows nothing");
            if !is_wide {
                assert_harmless(&shown, args);
            }
        }
    }
}

#[test]
fn table_in_a_terminal_is_short_and_a_pipe_gets_everything() {
    let (server, _) = filled();
    let site = &server.site;
    let table = run(site, &["key", "list", "builder"], 80, &[]).text();
    assert!(table.contains("LAST USED") && table.contains("never"), "{table}");
    let users = run(site, &["user", "list"], 80, &[]).text();
    assert!(users.contains('…'), "{users}");
    let trail = run(site, &["audit", "list", "--oldest-first"], 80, &[]).text();
    assert!(trail.contains(" ago") || trail.contains("now"), "{trail}");
    assert!(users.contains("Not shown: PASSWORD") && users.contains("--wide"), "{users}");
    let piped = String::from_utf8(site.run(&["user", "list"]).stdout).unwrap();
    assert!(piped.contains(&names()[1]) && !piped.contains('…'), "{piped}");
    assert!(piped.contains("PASSWORD") && piped.contains("Z\n"), "{piped}");
    let wide = run(site, &["user", "list", "--wide"], 80, &[]);
    assert!(wide.text().contains("PASSWORD"), "{}", wide.text());
    // COLUMNS has precedence over the terminal.
    let narrow = run(site, &["user", "list"], 200, &[("COLUMNS", "50")]);
    assert!(narrow.rows().iter().all(|row| row.width() <= 50), "{}", narrow.text());
    // The administrator's key was just used.
    let relative = site.run(&["key", "list", "admin", "--times", "relative"]).stdout;
    let relative = String::from_utf8(relative).unwrap();
    assert!(relative.contains(" ago\n") || relative.contains("now\n"), "{relative}");
}

#[test]
fn colours_show_states_unless_they_are_unwanted() {
    let server = Server::new();
    let green = "\u{1b}[32mactive\u{1b}[0m";
    let shown = |variables: &[(&str, &str)]| {
        let shown = run(&server.site, &["key", "list"], 80, variables);
        String::from_utf8(shown.bytes).unwrap()
    };
    assert!(shown(&[]).contains(green));
    assert!(shown(&[("NO_COLOR", "")]).contains(green));
    for variables in [[("NO_COLOR", "1")], [("TERM", "dumb")]] {
        let text = shown(&variables);
        assert!(text.contains("active") && !text.contains('\u{1b}'), "{variables:?}: {text:?}");
    }
    let piped = server.site.run(&["key", "list"]).stdout;
    assert!(!String::from_utf8(piped).unwrap().contains('\u{1b}'));
}

#[test]
fn text_from_outside_cannot_control_the_terminal() {
    let (server, _) = filled();
    let site = &server.site;
    let hostile = HOSTILE.trim_end();
    for args in [
        &["user", "show", hostile][..],
        &["user", "show", hostile, "--output", "json"],
        &["role", "show", hostile],
        &["resource", "show", "motd"],
        &["resource", "show", "motd", "--output", "json"],
        &["user", "list", "--output", "json"],
        &["audit", "list", "--output", "json"],
        &["audit", "export"],
        &["key", "list", "--sort", hostile],
        &["explain", "/user/1", "--host", hostile],
    ] {
        let shown = run(site, args, 200, &[]);
        let text = String::from_utf8(shown.bytes.clone()).unwrap();
        let is_harmful = |c: char| c.is_control() && !"\r\n\u{1b}".contains(c) || c == '\u{202e}';
        assert!(!text.contains(is_harmful), "{args:?}: {text:?}");
        assert!(!text.contains("\u{1b}]") && !text.contains("\u{1b}[2J"), "{args:?}: {text:?}");
        if args.contains(&"json") && shown.succeeded {
            let piped = site.json(&args[..args.len() - 2]);
            let read: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(read, piped, "{args:?}");
        }
    }
    // The name in a credential that somebody found.
    let key = server.generate_key("builder", &[]);
    let found = credential(&format!("mallory{hostile}"), &key.text);
    let shown = run_with_input(site, &["key", "show", "-"], 80, &[], &found);
    assert!(shown.text().contains("mallory"), "{}", shown.text());
    assert_harmless(&shown, &["key", "show", "-"]);
}

#[test]
fn change_is_confirmed_in_one_line_and_json_has_the_record() {
    let server = Server::new();
    let site = &server.site;
    let run = |args: &[&str]| {
        let output = site.run(args);
        assert!(output.status.success(), "{args:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(run(&["user", "add", "builder"]), "builder is created as user #2.\n");
    let keys = [server.generate_key("builder", &[]), server.generate_key("builder", &[])];
    assert_eq!(run(&["user", "block", "builder"]), "builder is blocked; 2 keys no longer work.\n");
    let again = "builder is like that already: nothing was changed.\n";
    assert_eq!(run(&["user", "block", "builder"]), again);
    run(&["key", "revoke", &keys[0].id]);
    assert_eq!(run(&["user", "unblock", "builder"]), "builder is active; 1 key works again.\n");
    let label = format!("The key {} of builder is changed: label: none → ci.\n", keys[1].id);
    assert_eq!(run(&["key", "edit", &keys[1].id, "--label", "ci"]), label);
    assert_eq!(site.json(&["user", "block", "builder"])["active"], false);
    let mail = ["user", "edit", "builder", "--mail", "b@example.com"];
    assert_eq!(run(&mail), "builder is changed: mail: none → b@example.com.\n");
}
