//! What commands ask of the API server, and what they make of its answers.

use clap::{CommandFactory, FromArgMatches};
use serde_json::{Value, json};

use crate::error::Error;
use crate::fake::{annotations, server};
use crate::{Cli, Command, run_with};

/// Runs a line as if it came from the shell; nobody is at the keyboard.
async fn call(session: &crate::access::Session, line: &str) -> Result<(), Error> {
    let words = std::iter::once("x".to_owned()).chain(shlex::split(line).unwrap());
    let cli = Cli::from_arg_matches(&Cli::command().get_matches_from(words)).unwrap();
    let command: Command = cli.command;
    run_with(session, &command).await
}

fn config(state: &std::sync::Mutex<crate::fake::State>) -> Value {
    serde_json::from_str(annotations(state, "orders-config")["config"].as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn pause_is_written_where_agents_read_it_and_nowhere_else() {
    let (session, state) = server();
    call(&session, "pause orders --yes").await.unwrap();
    assert_eq!((config(&state)["pause"].clone(), config(&state)["ttl"].clone()), (json!(true), json!(10)));
    assert_eq!(state.lock().unwrap().writes, ["PATCH /api/v1/namespaces/shop/configmaps/orders-config"]);
    call(&session, "resume orders").await.unwrap();
    assert!(config(&state).get("pause").is_none());
    let history = annotations(&state, "orders-config")["history"].clone();
    assert!(history.is_string(), "the rest of the object has gone");
}

#[tokio::test]
async fn a_spec_that_names_pause_is_changed_too() {
    let (session, state) = server();
    let resource = "/apis/matriarch.dev/v1alpha1/namespaces/shop/postgresclusters/orders";
    state.lock().unwrap().objects.get_mut(resource).unwrap()["spec"]["paused"] = json!(false);
    call(&session, "pause orders --yes").await.unwrap();
    assert_eq!(state.lock().unwrap().objects[resource]["spec"]["paused"], json!(true));
    assert_eq!(config(&state)["pause"], json!(true));
}

#[tokio::test]
async fn fences_and_sleep_are_fields_of_the_spec() {
    let (session, state) = server();
    let resource = "/apis/matriarch.dev/v1alpha1/namespaces/shop/postgresclusters/orders";
    let spec = |key: &str| state.lock().unwrap().objects[resource]["spec"][key].clone();
    call(&session, "fence orders orders-2 --yes").await.unwrap();
    call(&session, "fence orders orders-0 orders-2 --yes").await.unwrap();
    assert_eq!(spec("fenced"), json!(["orders-2", "orders-0"]));
    call(&session, "unfence orders orders-2").await.unwrap();
    assert_eq!(spec("fenced"), json!(["orders-0"]));
    let error = call(&session, "fence orders orders-9 --yes").await.unwrap_err();
    assert_eq!(error.code(), 3, "{error}");
    call(&session, "hibernate orders --yes").await.unwrap();
    assert_eq!(spec("hibernate"), json!(true));
    call(&session, "wake orders").await.unwrap();
    assert_eq!(spec("hibernate"), json!(false));
}

#[tokio::test]
async fn a_change_of_somebody_else_is_never_overwritten() {
    let (session, state) = server();
    state.lock().unwrap().too_late = 1;
    let error = call(&session, "edit-config orders --set ttl=20 --yes").await.unwrap_err();
    assert!(error.to_string().contains("changed by somebody else") && error.code() == 1, "{error}");
    assert_eq!(config(&state)["ttl"], json!(10));
    // Pause says one thing, whatever else is changed: it is tried again.
    state.lock().unwrap().too_late = 1;
    call(&session, "pause orders --yes").await.unwrap();
    assert_eq!(config(&state)["pause"], json!(true));
}

#[tokio::test]
async fn nothing_is_done_when_nobody_is_there_to_ask() {
    let (session, state) = server();
    for line in [
        "pause orders",
        "switchover orders",
        "failover orders --candidate orders-0",
        "restart orders",
        "reinit orders orders-0",
        "edit-config orders --set ttl=20",
        "edit-config orders",
    ] {
        assert_eq!(call(&session, line).await.unwrap_err().code(), 5, "{line}");
    }
    assert_eq!(state.lock().unwrap().writes, Vec::<String>::new());
}

#[tokio::test]
async fn a_switchover_is_scheduled_once_and_called_off() {
    let (session, state) = server();
    let at = "2099-01-01T00:00:00Z";
    call(&session, &format!("switchover orders --candidate orders-0 --at {at} --yes")).await.unwrap();
    let wanted = json!({"leader": "orders-1", "member": "orders-0", "scheduled_at": at});
    assert_eq!(annotations(&state, "orders-failover"), wanted);
    let again = call(&session, "switchover orders --yes").await.unwrap_err();
    assert!(again.to_string().contains("already asked for"), "{again}");
    call(&session, "flush switchover orders --yes").await.unwrap();
    assert_eq!(annotations(&state, "orders-failover"), json!({}));
    assert_eq!(call(&session, "switchover orders --cancel --yes").await.unwrap_err().code(), 3);
}

#[tokio::test]
async fn a_missing_right_is_told_as_verb_and_resource() {
    let (session, state) = server();
    for (verb, part, line, said) in [
        ("GET", "postgresclusters", "status orders", "you may not get postgresclusters"),
        ("GET", "postgresclusters", "list orders", "you may not list postgresclusters"),
        ("GET", "/pods", "topology orders", "you may not list pods"),
        ("PATCH", "orders-failover", "switchover orders --at 2099-01-01T00:00:00Z -y", "you may not patch configmaps"),
        ("PATCH", "orders-config", "pause orders -y", "you may not patch configmaps"),
        ("GET", "/exec", "reload orders orders-0", "you may not get and create pods/exec"),
    ] {
        state.lock().unwrap().forbidden = Some((verb, part));
        let error = call(&session, line).await.unwrap_err();
        assert!(error.to_string().starts_with(said) && error.code() == 4, "{line}: {error}");
    }
}

#[tokio::test]
async fn what_needs_no_agent_is_shown_without_one() {
    let (session, _) = server();
    for line in ["status orders", "topology orders", "history orders", "show-config orders", "watch orders --count 1"] {
        call(&session, line).await.unwrap();
    }
    assert_eq!(call(&session, "status ordres").await.unwrap_err().code(), 3);
    assert_eq!(call(&session, "restart orders orders-7 -y").await.unwrap_err().code(), 3);
}
