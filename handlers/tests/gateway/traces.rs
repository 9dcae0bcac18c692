//! `traceparent` is passed on (PROTOCOL 2), and spans are exported if the settings say so.

use rollcall_loadtest::{Client, GatewayOptions};
use serde_json::{Value, json};

use crate::common::{
    Backend, Collector, FUNCTIONS_SECRET, Function, FunctionsFile, Reply, SOON, Span, on_both_kinds, until,
};

on_both_kinds![
    what_comes_with_a_connection_goes_to_functions_and_events,
    a_sessions_events_carry_its_trace,
    a_client_does_not_choose_which_traces_are_sampled,
    spans_of_a_sampled_trace_are_exported_and_their_ids_passed_on,
    an_event_is_delivered_in_its_trace_and_a_webhook_called_in_one,
];

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

fn parent(flags: &str) -> String {
    format!("00-{TRACE}-{PARENT}-{flags}")
}

/// Returns a function whose answer publishes an event to the lesson.
async fn function() -> (Function, FunctionsFile) {
    let event = json!({"to": "lesson", "entity_type": "poll", "operation": "closed", "body": {}});
    let function = Function::start(move |_| Reply::Json(200, json!({"publish": [event]}))).await;
    let file = FunctionsFile::new(&[("vote", &function.url(), "")]);
    (function, file)
}

/// Returns the `traceparent` of the last call to the function.
fn told(function: &Function) -> Option<String> {
    function.calls().last().and_then(|call| call.headers.get("traceparent").cloned())
}

async fn enters(backend: &Backend, header: Option<&str>, traceparent: Value) -> Client {
    let room = backend.classroom();
    let headers: Vec<_> = header.map(|value| ("traceparent", value)).into_iter().collect();
    let mut client = Client::connect_with(backend.gateway.address(), "/ws", &headers).await.unwrap();
    let request = json!({
        "token": room.participant("alice"), "classroom_id": room.id, "agent_label": "web", "traceparent": traceparent,
    });
    client.connect_request_with(request).await.unwrap();
    assert_eq!(client.join_lesson(&room.algebra).await.unwrap()["status"], "SUCCESS");
    client
}

async fn what_comes_with_a_connection_goes_to_functions_and_events(kind: &Backend) {
    let (function, file) = function().await;
    let backend = kind.another(|options| trusting(&file.on(options)));
    let other = parent("00").replace(PARENT, "1111111111111111");
    for (header, field, passed_on) in [
        (None, json!(parent("01")), Some(parent("01"))),
        (Some(&*other), Value::Null, Some(other.clone())),
        (Some(&*other), json!(parent("01")), Some(parent("01"))),
        // A faulty `traceparent` is ignored, and the client is accepted.
        (Some("nonsense"), json!(7), None),
        (None, Value::Null, None),
    ] {
        let mut client = enters(&backend, header, field).await;
        assert_eq!(client.request("vote", json!({})).await.unwrap()["status"], "SUCCESS");
        assert_eq!(told(&function), passed_on);
    }
    let lesson = |room: &crate::common::Classroom| format!("lesson.{}.poll", room.algebra);
    if let Some(stored) = backend.stored(&lesson(&backend.classrooms()[0]), 1).await {
        assert_eq!(stored[0].header("traceparent"), parent("01"));
        let without = backend.stored(&lesson(&backend.classrooms()[4]), 1).await.unwrap();
        assert_eq!(without[0].header("traceparent"), "");
    }
}

fn trusting(options: &GatewayOptions) -> GatewayOptions {
    options.clone().env("ROLLCALL_TRACE_TRUST_CLIENTS", "true")
}

async fn a_sessions_events_carry_its_trace(kind: &Backend) {
    let receiver = Function::start(|_| Reply::Json(200, json!({}))).await;
    let backend = kind.another(|options| {
        trusting(options).env("ROLLCALL_WEBHOOK_URL", receiver.url()).env("ROLLCALL_WEBHOOK_SECRET", FUNCTIONS_SECRET)
    });
    for (room, trace) in backend.classrooms().iter().zip([json!(parent("01")), Value::Null]) {
        let mut client = enters(&backend, None, trace.clone()).await;
        assert_eq!(client.request("set_state", json!({"state": {"hand": true}})).await.unwrap()["status"], "SUCCESS");
        client.close().await.unwrap();
        let posted = || {
            let bodies = receiver.calls().into_iter().map(|call| serde_json::from_str::<Value>(&call.body).unwrap());
            let events = bodies.flat_map(|body| body["events"].as_array().unwrap().clone());
            let events = events.filter(|event| event["classroom_id"] == json!(room.id));
            events
                .map(|event| (event["event"]["id"]["operation"].clone(), event["traceparent"].clone()))
                .collect::<Vec<_>>()
        };
        let all = ["entered", "updated", "left"].map(|operation| (json!(operation), trace.clone()));
        until("the events", SOON, async || posted(), |posted| *posted == all).await;
        if let Some(stored) = backend.stored(&format!("classroom.{}.agent", room.id), 3).await {
            let headers: Vec<_> = stored.iter().map(|event| event.header("traceparent")).collect();
            assert_eq!(headers, [trace.as_str().unwrap_or_default(); 3]);
        }
    }
}

async fn a_client_does_not_choose_which_traces_are_sampled(kind: &Backend) {
    let (function, file) = function().await;
    for (ratio, flags) in [("0", ["01", "00"]), ("1", ["00", "01"])] {
        let collector = Collector::start().await;
        let backend = kind.another(|options| {
            exporting(&file.on(options), &collector)
                .env("ROLLCALL_TRACE_TRUST_CLIENTS", "false")
                .env("ROLLCALL_TRACE_RATIO", ratio)
        });
        let [sent, passed_on] = flags;
        for (header, field) in [(Some(parent(sent)), Value::Null), (None, json!(parent(sent)))] {
            let mut client = enters(&backend, header.as_deref(), field).await;
            assert_eq!(client.request("vote", json!({})).await.unwrap()["status"], "SUCCESS");
            let told = told(&function).unwrap();
            assert!(told.starts_with(&format!("00-{TRACE}-")) && told.ends_with(passed_on), "{told}");
        }
        if ratio == "1" {
            let is_there = |spans: &Vec<Span>| spans.iter().any(|span| span.name == "vote" && span.trace == TRACE);
            until("the spans", SOON, async || collector.spans(), is_there).await;
        }
    }
}

fn exporting(options: &GatewayOptions, collector: &Collector) -> GatewayOptions {
    options
        .clone()
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url())
        .env("OTEL_EXPORTER_OTLP_HEADERS", "api-key=hunter2,tenant=school")
        .env("OTEL_SERVICE_NAME", "classrooms")
        .env("OTEL_BSP_SCHEDULE_DELAY", "50")
        .env("ROLLCALL_TRACE_TRUST_CLIENTS", "true")
        .env("ROLLCALL_TRACE_RATIO", "0")
}

async fn spans_of_a_sampled_trace_are_exported_and_their_ids_passed_on(kind: &Backend) {
    let (function, file) = function().await;
    let collector = Collector::start().await;
    let backend = kind.another(|options| exporting(&file.on(options), &collector));
    let mut unsampled = enters(&backend, None, json!(parent("00"))).await;
    unsampled.request("vote", json!({})).await.unwrap();
    let passed_on = told(&function).unwrap();
    assert!(passed_on.starts_with(&format!("00-{TRACE}-")) && passed_on.ends_with("-00"), "{passed_on}");
    let mut client = enters(&backend, None, json!(parent("01"))).await;
    assert_eq!(client.request("vote", json!({})).await.unwrap()["status"], "SUCCESS");
    let named = |spans: &[Span], name: &str| spans.iter().filter(|span| span.name == name).cloned().collect::<Vec<_>>();
    let spans = until("the spans", SOON, async || collector.spans(), |spans| !named(spans, "vote").is_empty()).await;
    assert!(spans.iter().all(|span| span.trace == TRACE && span.service == "classrooms"), "{spans:#?}");
    for (name, calls) in [
        ("connect", &["open session"][..]),
        ("join_lesson", &["join lesson", "write keys"]),
        ("vote", &["store events"]),
    ] {
        let [request] = &named(&spans, name)[..] else { panic!("{name} once: {spans:#?}") };
        assert_eq!(request.parent, PARENT, "{name}");
        for call in calls {
            let found = spans.iter().any(|span| span.name == *call && span.parent == request.id);
            assert!(found, "{call} in {name}: {spans:#?}");
        }
    }
    let [vote] = &named(&spans, "vote")[..] else { unreachable!() };
    let (told, calls) = (told(&function).unwrap(), named(&spans, "call function"));
    assert_eq!((calls.len(), &calls[0].parent), (1, &vote.id));
    assert_eq!(told, format!("00-{TRACE}-{}-01", calls[0].id));
    let heads = collector.heads();
    for line in
        ["POST /v1/traces HTTP/1.1", "api-key: hunter2", "tenant: school", "content-type: application/x-protobuf"]
    {
        assert!(heads.iter().any(|head| head == line), "{line}: {heads:?}");
    }
    assert!(backend.gateway.metric("rollcall_trace_exports_total", &["outcome=\"done\""]).unwrap() >= 1.0);
}

async fn an_event_is_delivered_in_its_trace_and_a_webhook_called_in_one(kind: &Backend) {
    let collector = Collector::start().await;
    let receiver = Function::start(|_| Reply::Json(200, json!({}))).await;
    let backend = kind.another(|options| {
        exporting(options, &collector)
            .env("ROLLCALL_TRACE_RATIO", "1")
            .env("ROLLCALL_WEBHOOK_URL", receiver.url())
            .env("ROLLCALL_WEBHOOK_SECRET", FUNCTIONS_SECRET)
    });
    let mut client = enters(&backend, None, Value::Null).await;
    let subject = format!("classroom.{}.note", backend.classrooms()[0].id);
    let event = json!({"subject": subject, "body": {"n": 1}, "headers": {"traceparent": parent("01")}});
    assert_eq!(backend.gateway.post("/api/v1/publish", &event).unwrap().0, 202);
    assert_eq!(client.next_event(SOON).await.unwrap().body, json!({"n": 1}));
    if let Some(stored) = backend.stored(&subject, 1).await {
        assert_eq!(stored[0].header("traceparent"), parent("01"));
    }
    let delivered = |spans: &Vec<Span>| spans.iter().any(|span| span.name == "deliver" && span.parent == PARENT);
    until("the delivery", SOON, async || collector.spans(), delivered).await;
    let told = until("the webhook", SOON, async || told(&receiver), Option::is_some).await.unwrap();
    let called = |spans: &Vec<Span>| {
        let ids =
            spans.iter().filter(|span| span.name == "webhook").map(|span| format!("00-{}-{}-01", span.trace, span.id));
        ids.into_iter().any(|id| id == told)
    };
    until("its span", SOON, async || collector.spans(), called).await;
}

#[tokio::test]
async fn what_is_left_is_exported_when_the_node_ends() {
    let collector = Collector::start().await;
    let seldom = |options: &GatewayOptions| exporting(options, &collector).env("OTEL_BSP_SCHEDULE_DELAY", "3600000");
    let mut backend = Backend::embedded().another(seldom);
    let _client = enters(&backend, None, json!(parent("01"))).await;
    assert_eq!(collector.spans(), []);
    backend.gateway.terminate().unwrap();
    let is_there = |spans: &Vec<Span>| spans.iter().any(|span| span.name == "join_lesson");
    until("the spans", SOON, async || collector.spans(), is_there).await;
    assert!(backend.gateway.wait(SOON).unwrap().success(), "{}", backend.gateway.output());
}
