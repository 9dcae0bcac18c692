//! Tests that `SETTINGS.md` lists every setting as it is.
use std::collections::BTreeSet;

use super::{changes, names, value};

#[test]
fn the_table_of_settings_has_every_setting_with_its_default() {
    let rows = include_str!("../../SETTINGS.md").lines().filter_map(|line| {
        let [variable, default, ..] = line.strip_prefix("| `")?.split(" | ").collect::<Vec<_>>()[..] else {
            return None;
        };
        Some((variable.strip_suffix('`').unwrap_or(variable), default))
    });
    let rows: Vec<_> = rows.collect();
    let listed: BTreeSet<_> = rows.iter().map(|(variable, _)| *variable).collect();
    assert_eq!(listed.len(), rows.len(), "a setting has two rows");
    let written = |setting: &names::Setting| match setting.kind {
        names::Kind::Secret => format!("{}` (secret)", setting.name),
        _ => setting.name.to_owned(),
    };
    let known: BTreeSet<_> = names::ALL.iter().map(written).collect();
    let known: BTreeSet<_> = known.iter().map(String::as_str).collect();
    let (missing, unknown): (Vec<_>, Vec<_>) =
        (known.difference(&listed).collect(), listed.difference(&known).collect());
    assert!(missing.is_empty() && unknown.is_empty(), "no row of {missing:?}; rows of no setting: {unknown:?}");
    for setting in names::ALL {
        let (_, default) = rows.iter().find(|(variable, _)| *variable == written(setting)).unwrap();
        // An explanation may follow the default: `0: what open files allow`.
        let rest = default.strip_prefix(setting.default.unwrap_or("none"));
        assert!(
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([':', ';'])),
            "{}: {default}",
            setting.name
        );
    }
}

#[test]
fn each_setting_has_the_kind_of_its_default() {
    for setting in names::ALL {
        let default = setting.default.unwrap_or_default();
        let kind = match default {
            "true" | "false" => names::Kind::Switch,
            _ if default.contains('.') && value::fraction(default).is_ok() => names::Kind::Fraction,
            _ if default.parse::<u64>().is_ok() => names::Kind::Number,
            _ if !default.is_empty() && value::size(default).is_ok() => names::Kind::Size,
            _ => continue,
        };
        assert_eq!(setting.kind, kind, "{}: in the settings file its value is written as that", setting.name);
    }
}

#[test]
fn the_settings_that_are_taken_over_on_sighup_are_listed() {
    let (_, listed) = include_str!("../../SETTINGS.md").split_once("It takes over these settings").unwrap();
    let (listed, _) = listed.split_once("\n\n").unwrap();
    let listed: BTreeSet<_> = listed.split('`').filter(|quoted| quoted.starts_with("ROLLCALL_")).collect();
    let taken_over: BTreeSet<_> = changes::RELOADED.iter().map(|setting| setting.name).collect();
    assert_eq!(listed, taken_over);
}
