//! The tools against a mock of GitHub: the wire's shapes, the manifest's bindings, GitHub's errors.

use keybearer_guest::http::Method;
use keybearer_guest::http::Response;
use keybearer_guest::mock::Host;

use super::*;

fn issue(owner: &str, repo: &str) -> CreateIssue {
    CreateIssue {
        owner: owner.to_owned(),
        repo: repo.to_owned(),
        title: "It broke".to_owned(),
        body: None,
        labels: vec!["bug".to_owned()],
        assignees: vec![],
    }
}

fn search(query: &str) -> SearchCode {
    SearchCode { query: query.to_owned(), per_page: Some(5), page: None }
}

#[test]
fn an_issue_is_json_with_githubs_headers_within_the_binding() {
    let manifest = keybearer_tool_check::manifest(include_str!("../manifest.toml"), &PACKAGE);
    let host = Host::new().on(Method::Post, "https://api.github.com/repos/octo/hello.world/issues", |_| {
        Response::new(201).with_json(&json!({
            "id": 1, "number": 1347, "state": "open", "title": "It broke",
            "html_url": "https://github.com/octo/hello.world/issues/1347"
        }))
    });
    let made = host.run(|| create_issue(issue("octo", "hello.world"))).expect("a result");
    assert_eq!((made.number, made.state.as_str()), (1347, "open"));
    let [request] = &host.requests()[..] else { panic!("one request") };
    assert_eq!(request.json::<Value>(), json!({ "title": "It broke", "labels": ["bug"] }));
    assert_eq!(request.header("accept"), Some("application/vnd.github+json"));
    assert_eq!(request.header("x-github-api-version"), Some("2022-11-28"));
    assert!(request.header("user-agent").is_some());
    assert!(keybearer_tool_check::admits(&manifest, "api", request));
}

#[test]
fn n17_an_owner_that_is_a_path_is_refused_and_nothing_is_sent() {
    let host = Host::new();
    for (owner, repo) in [("octo/../..", "x"), ("..", "x"), ("octo", ""), ("octo", "a/b"), ("octo", "a%2Fb")] {
        let answer = host.run(|| create_issue(issue(owner, repo)));
        assert!(matches!(answer, Err(ToolError::InvalidArguments(_))), "{owner} {repo}");
    }
    assert_eq!(host.requests(), vec![]);
}

#[test]
fn code_is_searched_with_an_encoded_query_within_the_binding() {
    let manifest = keybearer_tool_check::manifest(include_str!("../manifest.toml"), &PACKAGE);
    let host = Host::new().on(Method::Get, "https://api.github.com/search/code", |_| {
        Response::new(200).with_json(&json!({
            "total_count": 7, "incomplete_results": false,
            "items": [{
                "name": "classes.js", "path": "src/classes.js", "sha": "d7212f9",
                "html_url": "https://github.com/jquery/jquery/blob/d7212f9/src/classes.js",
                "repository": { "id": 1, "full_name": "jquery/jquery" }
            }]
        }))
    });
    let found = host.run(|| search_code(search("addClass in:file repo:jquery/jquery"))).expect("a result");
    assert_eq!((found.total, found.files[0].repository.as_str()), (7, "jquery/jquery"));
    let [request] = &host.requests()[..] else { panic!("one request") };
    assert_eq!(
        request.url,
        "https://api.github.com/search/code?q=addClass%20in%3Afile%20repo%3Ajquery%2Fjquery&per_page=5"
    );
    assert!(keybearer_tool_check::admits(&manifest, "api", request));
}

#[test]
fn githubs_own_word_reaches_the_caller_and_a_refusal_of_the_host_stays_denied() {
    let answering = |answer: Response| {
        let host = Host::new().on(Method::Get, "https://api.github.com/search/code", move |_| answer.clone());
        host.run(|| search_code(search("x"))).err()
    };
    assert_eq!(
        answering(Response::new(422).with_json(&json!({ "message": "Validation Failed", "errors": [] }))),
        Some(ToolError::upstream("GitHub answered 422: Validation Failed"))
    );
    assert_eq!(
        answering(
            Response::new(403).with_header("X-RateLimit-Remaining", "0").with_header("X-RateLimit-Reset", "1700000000")
        ),
        Some(ToolError::upstream("GitHub answered 403: its rate limit is spent until 1700000000"))
    );
    assert_eq!(Host::new().run(|| search_code(search("x"))), Err(ToolError::Denied));
}
