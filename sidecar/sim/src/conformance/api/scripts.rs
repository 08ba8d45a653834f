//! The scripts of the API server.

use super::{Answer, Call, Script, Step};

/// All scripts. Their names of objects are their own: one API server may play them all, one after the other.
pub fn scripts() -> Vec<Script> {
    use Answer::{Conflict, NotFound, Ok};
    use Step::{Calls, Lists, Newer, SameUid, SameVersion, Value, Watches};
    let s = |word: &str| word.to_owned();
    let create = |value: &str| Call::Create(s("o"), s(value));
    let patch =
        |on: Option<&str>, value: Option<&str>| Call::Patch { name: s("o"), on: on.map(s), value: value.map(s) };
    let get = || Call::Get(s("o"));
    let delete = || Call::Delete(s("o"));
    let told = |name: &str, value: Option<&str>| (s(name), value.map(s));
    let script = |name: &str, steps: Vec<Step>| Script { name: s(name), steps };
    vec![
        script(
            "of two writes on the same version one is refused",
            vec![
                Calls(create("a"), Ok, s("1")),
                Calls(patch(Some("1"), Some("b")), Ok, s("2")),
                Newer(s("1"), s("2")),
                Calls(patch(Some("1"), Some("c")), Conflict, s("")),
                Calls(get(), Ok, s("3")),
                Value(s("3"), Some(s("b"))),
                SameVersion(s("2"), s("3")),
            ],
        ),
        script(
            "a write that changes nothing keeps the version, and is told by no watch",
            vec![
                Calls(create("a"), Ok, s("1")),
                Calls(patch(None, Some("a")), Ok, s("2")),
                SameVersion(s("1"), s("2")),
                Calls(patch(Some("1"), Some("a")), Ok, s("3")),
                SameVersion(s("1"), s("3")),
                Watches(s("1"), vec![]),
            ],
        ),
        script(
            "a write that changes nothing is refused on an old version all the same",
            vec![
                Calls(create("a"), Ok, s("1")),
                Calls(patch(Some("1"), Some("b")), Ok, s("2")),
                Calls(patch(Some("1"), Some("b")), Conflict, s("")),
            ],
        ),
        script(
            "what is there is not created again",
            vec![
                Calls(create("a"), Ok, s("1")),
                Calls(create("b"), Conflict, s("")),
                Calls(get(), Ok, s("2")),
                SameVersion(s("1"), s("2")),
            ],
        ),
        script(
            "what is not there is not found",
            vec![
                Calls(get(), NotFound, s("")),
                Calls(patch(None, Some("a")), NotFound, s("")),
                Calls(delete(), NotFound, s("")),
                Calls(create("a"), Ok, s("1")),
                Calls(delete(), Ok, s("")),
                Calls(patch(Some("1"), Some("b")), NotFound, s("")),
                Calls(get(), NotFound, s("")),
            ],
        ),
        script(
            "what is created again is another object",
            vec![
                Calls(create("a"), Ok, s("1")),
                Calls(delete(), Ok, s("")),
                Calls(create("a"), Ok, s("2")),
                SameUid(s("1"), s("2"), false),
                Newer(s("1"), s("2")),
                Calls(patch(Some("1"), Some("b")), Conflict, s("")),
                Calls(patch(Some("2"), Some("b")), Ok, s("3")),
                SameUid(s("2"), s("3"), true),
            ],
        ),
        script(
            "a watch from an old version tells everything since, in order",
            vec![
                Lists(s("0"), vec![]),
                Calls(create("a"), Ok, s("1")),
                Calls(patch(None, Some("b")), Ok, s("2")),
                Calls(Call::Create(s("p"), s("x")), Ok, s("")),
                Calls(patch(None, None), Ok, s("3")),
                Calls(delete(), Ok, s("")),
                Calls(create("c"), Ok, s("")),
                Watches(
                    s("0"),
                    vec![
                        told("o", Some("a")),
                        told("o", Some("b")),
                        told("p", Some("x")),
                        told("o", None),
                        told("o", None),
                        told("o", Some("c")),
                    ],
                ),
                Watches(s("2"), vec![told("p", Some("x")), told("o", None), told("o", None), told("o", Some("c"))]),
            ],
        ),
        script(
            "a deletion has a version of its own",
            vec![
                Calls(create("a"), Ok, s("1")),
                Calls(delete(), Ok, s("")),
                Lists(s("2"), vec![]),
                Newer(s("1"), s("2")),
                Watches(s("1"), vec![told("o", None)]),
                Watches(s("2"), vec![]),
            ],
        ),
        script(
            "a list is as new as all that was written, and a watch goes on from it",
            vec![
                Calls(create("a"), Ok, s("1")),
                Calls(Call::Create(s("p"), s("x")), Ok, s("2")),
                Lists(s("3"), vec![s("o"), s("p")]),
                Newer(s("1"), s("3")),
                Calls(patch(None, Some("b")), Ok, s("4")),
                Newer(s("3"), s("4")),
                Watches(s("3"), vec![told("o", Some("b"))]),
            ],
        ),
        script(
            "an annotation is removed, and set again",
            vec![
                Calls(create("a"), Ok, s("1")),
                Calls(patch(None, None), Ok, s("2")),
                Value(s("2"), None),
                Calls(patch(None, None), Ok, s("3")),
                SameVersion(s("2"), s("3")),
                Calls(patch(Some("3"), Some("b")), Ok, s("4")),
                Value(s("4"), Some(s("b"))),
            ],
        ),
    ]
}
