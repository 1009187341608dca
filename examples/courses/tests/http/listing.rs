//! Lists: paging, search, filters, order.

use serde_json::Value;

use super::Service;

/// The names that a list shows.
fn names(list: &Value) -> Vec<&str> {
    list["courses"].as_array().expect("courses").iter().map(|course| course["name"].as_str().expect("a name")).collect()
}

#[tokio::test]
async fn pages_follow_one_another_and_hold_everything() {
    let service = Service::new();
    let all = service.get("/api/courses?per_page=100").await.json();
    let total = all["total"].as_u64().expect("a total") as usize;
    assert_eq!(names(&all).len(), total);
    assert!(all["next"].is_null() && all["previous"].is_null());
    let mut path = "/api/courses?per_page=5".to_owned();
    let mut seen: Vec<String> = Vec::new();
    loop {
        let page = service.get(&path).await.json();
        assert!(names(&page).len() <= 5);
        seen.extend(names(&page).into_iter().map(str::to_owned));
        match page["next"].as_str() {
            Some(next) => path = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, names(&all));
    let behind = service.get("/api/courses?page=1000").await.json();
    assert_eq!((names(&behind).len(), behind["total"].as_u64()), (0, Some(total as u64)));
}

#[tokio::test]
async fn searches_filters_and_orders() {
    let service = Service::new();
    let check = async |query: &str, expected: &[&str]| {
        let list = service.get(&format!("/api/courses?{query}")).await.json();
        assert_eq!(names(&list), expected, "{query}");
    };
    check("q=RUST", &["Rust from the First Line"]).await;
    check("q=data+bookshop", &["Databases You Can Reason About"]).await;
    check("q=%C3%89CRIRE", &["Écrire en français"]).await;
    check("q=100%25", &[]).await;
    check("q=%27+OR+1%3D1+--", &[]).await;
    check("from=2027-05-10&to=2027-06-04", &["Drawing What You See"]).await;
    check("currency=GBP&max_price=65", &["Drawing What You See"]).await;
    check("currency=GBP&sort=-price", &["The Physics of Music", "Drawing What You See"]).await;
    check("currency=EUR&max_price=0", &["Accessible Web Pages"]).await;
    check("currency=JPY&min_price=18000", &["Japanese for Beginners"]).await;
    let sorted = service.get("/api/courses?sort=-start").await.json();
    assert_eq!(names(&sorted)[0], "A Weekend of Git");
}

#[tokio::test]
async fn every_wrong_parameter_is_named() {
    let service = Service::new();
    let answer = service.get("/api/courses?page=0&sort=up&max_price=5&colour=red").await;
    assert_eq!(answer.problem(400), ["page", "sort", "colour", "max_price"]);
}

#[tokio::test]
async fn it_says_how_it_is() {
    let answer = Service::new().get("/healthz").await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, r#"{"status":"ok"}"#));
}
