//! What the shipped filter asks of a host, against what each host has.

use kafka_upstream_emulator::{Guest, Profile, imports};

#[test]
fn every_host_has_what_the_filter_imports() {
    let guest = Guest::filter();
    for profile in Profile::ALL {
        let has = imports::names(profile);
        for (module, name) in guest.imports().iter().filter(|(module, _)| module == "env") {
            assert!(has.contains(&name.as_str()), "{profile:?} has no {module}.{name}");
        }
        assert_eq!(guest.load_error(profile), None, "{profile:?}");
    }
}

#[test]
fn the_filter_imports_nothing_that_keeps_it_from_loading_on_nginx() {
    let guest = Guest::filter();
    for missing in ["proxy_get_log_level", "proxy_get_metric"] {
        assert!(!guest.imports().iter().any(|(_, name)| name == missing), "{missing}");
    }
}
