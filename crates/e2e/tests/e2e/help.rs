//! Help where it is looked for: `--help`, completions in a real bash, manual pages through a real groff.

use std::fs;
use std::process::Command;

use sampan_e2e::sampan::outcome;
use sampan_e2e::{Sampan, tools};

/// A command that needs no daemon.
fn sampan(words: &[&str]) -> String {
    outcome(Command::new(tools::sampan()).args(words).env("SAMPAN_ROOT", "/nonexistent")).assert_ok().stdout
}

/// The commands that a help page lists.
fn commands(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = lines.take_while(|line| line.starts_with("  ")).filter(|line| !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).filter(|name| name != "help").collect()
}

#[test]
fn every_command_helps_with_an_example() {
    let mut left = vec![Vec::new()];
    let mut seen = 0;
    while let Some(path) = left.pop() {
        let mut words: Vec<&str> = path.iter().map(String::as_str).collect();
        words.push("--help");
        let help = sampan(&words);
        assert!(help.contains("\nExample") && help.contains("\n  sampan "), "{path:?}: {help}");
        // what is printed is for a terminal of a usual width
        assert!(help.lines().all(|line| line.chars().count() <= 200), "{path:?}: {help}");
        left.extend(commands(&help).into_iter().map(|name| [path.clone(), vec![name]].concat()));
        seen += 1;
    }
    assert!(seen > 20, "only {seen} commands were found");
}

/// What bash offers for a line whose last word is being typed.
fn completed(script: &std::path::Path, line: &str) -> Vec<String> {
    let words: Vec<String> = line.split(' ').map(|word| format!("'{word}'")).collect();
    let bash = format!(
        "source {script} || exit 1; COMP_WORDS=({words}); COMP_CWORD={at}; \
         function=$(complete -p sampan | sed 's/.*-F \\([^ ]*\\).*/\\1/'); \
         \"$function\" sampan \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"; \
         printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        script = script.display(),
        words = words.join(" "),
        at = words.len() - 1,
    );
    let offered = outcome(Command::new("bash").args(["--norc", "--noprofile", "-c", &bash])).assert_ok();
    assert_eq!(offered.stderr, "", "{line}");
    offered.stdout.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn bash_completes() {
    let dir = tempfile::tempdir_in(tools::scratch()).expect("a directory");
    let script = dir.path().join("sampan.bash");
    fs::write(&script, sampan(&["completions", "bash"])).expect("the script");
    let check = |line: &str, offered: &[&str], not_offered: &[&str]| {
        let found = completed(&script, line);
        for word in offered {
            assert!(found.iter().any(|other| other == word), "{line:?}: no {word} in {found:?}");
        }
        for word in not_offered {
            assert!(!found.iter().any(|other| other == word), "{line:?}: {word} in {found:?}");
        }
    };
    check("sampan ", &["up", "run", "image", "daemon"], &["install"]);
    check("sampan in", &["inspect"], &["up"]);
    check("sampan daemon ", &["start", "stop", "install", "uninstall"], &["up"]);
    check("sampan run --mem", &["--memory"], &["--rm"]);
    check("sampan image ", &["ls", "import", "rm"], &["stop"]);
    check("sampan completions ", &["bash", "zsh", "fish"], &[]);
}

#[test]
fn manual_pages_are_well_formed() {
    let dir = tempfile::tempdir_in(tools::scratch()).expect("a directory");
    let man = dir.path().join("man1");
    let written = sampan(&["man", man.to_str().expect("a path in UTF-8")]);
    let pages: Vec<&str> = written.lines().collect();
    assert!(pages.len() > 20 && pages.iter().any(|page| page.ends_with("/sampan-run.1")), "{written}");
    for page in &pages {
        let formatted = outcome(tools::groff().args(["-man", "-Tutf8", "-ww", "-P-cbou", page])).assert_ok();
        assert_eq!(formatted.stderr, "", "{page}");
        for section in ["NAME", "SYNOPSIS", "EXAMPLES"] {
            assert!(
                formatted.stdout.lines().any(|line| line == section),
                "{page}: no {section}:\n{}",
                formatted.stdout
            );
        }
    }
    let main = fs::read_to_string(man.join("sampan.1")).expect("the main page");
    for section in ["FILES", "ENVIRONMENT", "EXIT STATUS"] {
        assert!(main.contains(section), "no {section}");
    }
    assert_eq!(sampan(&["man"]), main);
}

#[test]
fn doctor_tells_programs_too() {
    let sampan = Sampan::new();
    let outcome = sampan.run(&["doctor", "--json"]);
    let findings: serde_json::Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    let findings = findings.as_array().expect("a list");
    for what in ["kernel", "overlay", "seccomp", "user ids", "inotify", "systemd", "clock", "reached from elsewhere"] {
        let finding = findings.iter().find(|finding| finding["what"] == what);
        let finding = finding.unwrap_or_else(|| panic!("nothing of {what} in {outcome}"));
        assert!(["ok", "warn", "fail"].contains(&finding["level"].as_str().unwrap_or_default()), "{finding}");
        assert_eq!(finding["level"] == "ok", finding["fix"].is_null(), "what is not well has a fix: {finding}");
    }
    assert_eq!(outcome.code() == 0, findings.iter().all(|finding| finding["level"] != "fail"), "{outcome}");
}
