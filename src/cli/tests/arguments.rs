//! Tests of the command line's arguments.

use clap::{CommandFactory as _, Parser as _, error::ErrorKind};

use crate::cli::{Cli, Command, Format, RecordCommand};

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("keyward").chain(line.split_whitespace()))
}

#[test]
fn command_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn command_is_optional_and_global_options_work_anywhere() {
    assert!(parse("").unwrap().command.is_none());
    assert!(matches!(parse("serve").unwrap().command, Some(Command::Serve(_))));
    for line in
        ["--output json user list --config c.toml", "user --config c.toml list --output json"]
    {
        let cli = parse(line).unwrap();
        assert_eq!((cli.output, cli.config), (Format::Json, Some("c.toml".into())), "{line}");
        assert!(matches!(cli.command, Some(Command::Records(RecordCommand::User(_)))));
    }
}

#[test]
fn valid_command_lines_are_accepted() {
    for line in [
        "init",
        "user add bob --mail b@example.com --role a --role b --password-stdin --blocked",
        "user add bob --password-prompt",
        "user show #7",
        "user show --uid 7",
        "user edit bob --name rob --no-mail --add-role a --remove-role b --no-password --timezone UTC",
        "user edit --uid 7 --mail b@example.com --password-stdin",
        "user block bob",
        "user unblock bob",
        "user delete bob --yes",
        "user delete bob -y",
        "key generate bob --label x --application default --scope a --expires 90d --network 10.0.0.0/8",
        "key generate --uid 7 --expires 2027-01-01T00:00:00Z",
        "key generate --all",
        "key generate --all --missing-only --file keys.csv --label x --expires 90d",
        "key generate --all --format jsonl",
        "key import keys.csv --digest sha256 --create-users --dry-run",
        "key import - --format kong",
        "key list",
        "key list bob --limit 5",
        "key list --uid 7",
        "key revoke 00000000 00000001",
        "key rotate 00000000",
        "key rotate - --overlap 0s --expires 90d",
        "key show -",
        "key scan",
        "key scan src - /tmp",
        "backup keys.backup",
        "restore keys.backup --check",
        "audit list --limit 3",
        "audit export",
        "audit verify --output json",
        "role add editor --label Editor --permission p --admin --weight -5",
        "role edit editor --grant a --revoke b",
        "app add x --name X --type basic --header Authorization --detail uniform --default --disabled --realm R",
        "app edit x --detail exact",
        "app enable x",
        "resource add x --handler respond --path /x --host h --method GET --format json --authentication * \
         --permission GET=p --status 204 --content-type text/plain --body hello",
        "resource edit x --permission GET=p --no-permission PUT --add-method PUT --remove-format any",
        "key edit 00000000 --expires 2026-12-31 --add-scope p --remove-network 10.0.0.0/8",
        "key delete 00000000 00000001 --yes",
        "key purge --ended-before 90d --dry-run",
        "apply s.toml --dry-run --exit-code --patch",
        "resource add --file r.json",
        "resource add x --file -",
        "resource edit x --file r.json",
        "resource disable x",
        "script check",
        "script check scripts",
        "script test scripts --filter hmac",
        "script new auth hmac --dir scripts",
        "script new hook",
        "script new hook orders",
        "script new handler hello",
        "script definitions",
        "script reload",
        "explain /user/1",
        "explain -X POST /entity/user -H API-KEY:x --headers - --host a.example --client ::1 -d {}",
        "config check",
        "config schema",
        "config print",
        "healthcheck",
        "completions fish",
    ] {
        assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
    }
}

#[test]
fn invalid_command_lines_are_rejected() {
    for (line, kind) in [
        ("user add", ErrorKind::MissingRequiredArgument),
        ("user show", ErrorKind::MissingRequiredArgument),
        ("user show bob --uid 7", ErrorKind::ArgumentConflict),
        ("key list bob --uid 7", ErrorKind::ArgumentConflict),
        ("key generate", ErrorKind::MissingRequiredArgument),
        ("key generate bob --all", ErrorKind::ArgumentConflict),
        ("key generate bob --file x", ErrorKind::ArgumentConflict),
        ("key generate --uid 7 --missing-only", ErrorKind::ArgumentConflict),
        ("user add bob --password-stdin --password-prompt", ErrorKind::ArgumentConflict),
        ("user edit bob --password-stdin --no-password", ErrorKind::ArgumentConflict),
        ("user edit bob --mail x --no-mail", ErrorKind::ArgumentConflict),
        ("user add bob --password hunter2", ErrorKind::UnknownArgument),
        ("key generate bob --expires soon", ErrorKind::ValueValidation),
        ("key revoke", ErrorKind::MissingRequiredArgument),
        ("role add x", ErrorKind::MissingRequiredArgument),
        ("resource add", ErrorKind::MissingRequiredArgument),
        ("resource add x --file f --path /x", ErrorKind::ArgumentConflict),
        ("resource add x --file f --rate-limit 1/1m", ErrorKind::ArgumentConflict),
        ("resource edit x --rate-limit 1/1m --no-rate-limit", ErrorKind::ArgumentConflict),
        ("resource edit x --file f --add-method GET", ErrorKind::ArgumentConflict),
        ("resource add x --add-method GET", ErrorKind::UnknownArgument),
        ("key edit 00000000 --add-scope p --no-scopes", ErrorKind::ArgumentConflict),
        ("key purge", ErrorKind::MissingRequiredArgument),
        ("apply s.toml --patch --clear", ErrorKind::ArgumentConflict),
        ("apply s.toml --exit-code", ErrorKind::MissingRequiredArgument),
        ("key edit 00000000 --credits 1/day --no-credits", ErrorKind::ArgumentConflict),
        ("app edit x --rate-limit 0/1m", ErrorKind::ValueValidation),
        ("user add bob --credits 0/day", ErrorKind::ValueValidation),
        ("resource add x --handler respond --body a --body-file b", ErrorKind::ArgumentConflict),
        ("resource add x --handler respond --permission GET", ErrorKind::ValueValidation),
        ("explain", ErrorKind::MissingRequiredArgument),
        ("explain / --client here", ErrorKind::ValueValidation),
        ("script new", ErrorKind::MissingRequiredArgument),
        ("script new role x", ErrorKind::InvalidValue),
        ("script reload scripts", ErrorKind::UnknownArgument),
        ("--output xml user list", ErrorKind::InvalidValue),
        ("completions dos", ErrorKind::InvalidValue),
    ] {
        let error = parse(line).expect_err(line);
        assert_eq!(error.kind(), kind, "{line}: {error}");
        assert_eq!(error.exit_code(), 2);
    }
}

/// Every process on the machine can read arguments, so no argument may be a secret.
#[test]
fn no_argument_takes_a_secret() {
    fn check(command: &clap::Command, count: &mut usize) {
        for argument in command.get_arguments() {
            *count += 1;
            let name = argument.get_id().as_str();
            let is_secret = ["password", "secret", "token", "key"]
                .contains(&name.trim_start_matches("new_"))
                || name.starts_with("password");
            assert!(!(is_secret && argument.get_action().takes_values()), "{name}");
        }
        command.get_subcommands().for_each(|inner| check(inner, count));
    }
    let mut count = 0;
    check(&Cli::command(), &mut count);
    assert!(count > 50, "{count}");
}

#[test]
fn help_lists_the_exit_codes() {
    let help = Cli::command().render_help().to_string();
    for code in 0..=7 {
        assert!(help.contains(&format!("\n  {code}  ")), "{code}: {help}");
    }
}
