//! The pages.

use serde_json::json;

use super::{Service, course};

#[tokio::test]
async fn the_list_and_a_course_are_pages() {
    let service = Service::new();
    let list = service.get("/").await;
    assert_eq!((list.status.as_u16(), list.header("content-type")), (200, "text/html; charset=utf-8"));
    for piece in ["<html lang=\"en\">", "name=\"viewport\"", "<label for=\"q\">", "/courses/1\">Rust from the First"] {
        assert!(list.text.contains(piece), "{piece:?} is not in {}", list.text);
    }
    assert!(!list.text.contains("<script") && !list.text.contains("style="));
    let shown = service.get("/courses/1").await;
    assert!(shown.text.contains("<h1>Rust from the First Line</h1>") && shown.text.contains("149.00 EUR"));
    assert!(shown.text.contains("<time datetime=\"2027-01-11\">11 January 2027</time>"), "{}", shown.text);
    assert_eq!(service.get("/style.css").await.header("content-type"), "text/css; charset=utf-8");
}

#[tokio::test]
async fn what_courses_say_stays_text() {
    let service = Service::new();
    let mut evil = course();
    evil["name"] = json!("<script>alert('x')</script>");
    evil["description"] = json!("\"><img src=x onerror=alert(1)>\n\nsecond & last");
    let id = service.send("POST", "/api/courses", &evil).await.json()["id"].clone();
    for page in [format!("/courses/{id}"), "/?q=script".to_owned(), "/?q=%22%3E%3Cscript%3E".to_owned()] {
        let answer = service.get(&page).await;
        assert_eq!(answer.status, 200);
        assert!(!answer.text.contains("<script") && !answer.text.contains("<img"), "{}", answer.text);
        assert!(answer.header("content-security-policy").starts_with("default-src 'none'"));
    }
    assert!(service.get(&format!("/courses/{id}")).await.text.contains("<p>second &amp; last</p>"));
}

#[tokio::test]
async fn searches_keep_what_was_typed_and_pages_link() {
    let service = Service::new();
    let page = service.get("/?q=a&currency=EUR&max_price=200&per_page=3&sort=-price&page=2").await.text;
    for piece in [
        "value=\"200.00\"",
        "<option value=\"EUR\" selected>",
        "<option value=\"-price\" selected>",
        "rel=\"prev\" href=\"/?q=a&amp;currency=EUR&amp;max_price=200.00&amp;sort=-price&amp;per_page=3&amp;page=1\"",
        "rel=\"next\"",
    ] {
        assert!(page.contains(piece), "{piece:?} is not in {page}");
    }
    let wrong = service.get("/?page=x&from=soon").await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.text.contains("role=\"alert\"") && wrong.text.contains("?from: use a day"), "{}", wrong.text);
}

#[tokio::test]
async fn what_is_not_there_is_a_page_too() {
    let service = Service::new();
    for path in ["/courses/9999", "/courses/x", "/nothing", "/courses/%3Cscript%3E"] {
        let answer = service.get(path).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("content-type")),
            (404, "text/html; charset=utf-8"),
            "{path}"
        );
        assert!(!answer.text.contains("<script"));
    }
}
