//! Published ports as other machines see them.

use std::io::Read as _;
use std::net::SocketAddr;

use sampan_e2e::Sampan;
use sampan_e2e::sampan::SOON;
use sampan_testkit::outside::{NEAR, Outside};
use sampan_testkit::wait_for;

use crate::alone;

#[test]
fn are_reached_from_others_only_when_asked() {
    let _alone = alone();
    let sampan = Sampan::new();
    sampan.import_busybox();
    let outside = Outside::new();
    let tables = sampan_testkit::leftovers::firewall_tables();
    let server = ["bb", "nc", "-ll", "-p", "7", "-e", "echo", "hello"];
    let port_of = |name: &str, publish: &str| -> u16 {
        sampan.ok(&[&["run", "-d", "--name", name, "-p", publish], &server[..]].concat());
        let port = sampan.inspect(name)["ports"][0]["host_port"].as_u64().expect("a port");
        u16::try_from(port).expect("a port")
    };

    let near = |port| SocketAddr::from((NEAR, port));
    let ours = port_of("ours", "7");
    assert!(outside.connect(near(ours)).is_err(), "a port of the loopback is this machine's alone");
    for (name, publish) in [("all", "0.0.0.0::7".to_owned()), ("one", format!("{NEAR}::7"))] {
        let port = port_of(name, &publish);
        let word = wait_for("an answer", SOON, || {
            let mut word = String::new();
            outside.connect(near(port)).ok()?.read_to_string(&mut word).ok()?;
            (!word.is_empty()).then_some(word)
        });
        assert_eq!(word.trim(), "hello", "{name}");
    }
    // sockets, and no rules: whatever the user's own firewall says of these ports holds
    assert_eq!(sampan_testkit::leftovers::firewall_tables(), tables);
}
