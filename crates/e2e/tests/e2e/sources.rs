//! Sources besides one program: static sites, Procfiles, several services of one `sampan.toml`.

use std::fs;
use std::path::Path;

use sampan_e2e::sampan::body_of;
use sampan_e2e::{Sampan, http, sources};
use serde_json::Value;

/// A directory of the test's own with these files.
fn directory(sampan: &Sampan, name: &str, files: &[(&str, &str)]) -> std::path::PathBuf {
    let directory = sampan.dir().join(name);
    for (name, content) in files {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, content).expect("a file");
    }
    directory
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

fn names(sampan: &Sampan) -> Vec<String> {
    let Value::Array(listed) = sampan.json(&["ps", "--json"]) else { panic!("ps lists no array") };
    let mut names: Vec<_> = listed.iter().map(|one| one["name"].as_str().expect("a name").to_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_static_site() {
    let sampan = Sampan::new();
    let url = sampan.up(&sources::example("static-site"), &[]);
    let home = http::get(&url).expect("an answer");
    assert_eq!((home.status, home.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(home.body.contains("<h1>Hello from a static site</h1>"), "{}", home.body);
    assert!(body_of(&format!("{url}about/")).contains("<h1>About</h1>"));
    let missing = http::get(&format!("{url}nothing")).expect("an answer");
    assert!(missing.status == 404 && missing.body.contains("There is nothing here"), "{missing:?}");

    let style = format!("{url}css/style.css");
    let whole = http::get(&style).expect("an answer");
    let part = http::get_with(&style, &[("Range", "bytes=0-4")]).expect("an answer");
    assert_eq!((part.status, part.body.as_str()), (206, &whole.body[..5]));
    assert_eq!(part.header("content-range"), Some(format!("bytes 0-4/{}", whole.body.len()).as_str()));
    let tag = whole.header("etag").expect("a tag");
    let again = http::get_with(&style, &[("If-None-Match", tag)]).expect("an answer");
    assert_eq!((again.status, again.body.as_str()), (304, ""));
    assert_eq!(http::get_with(&format!("{url}../etc/passwd"), &[]).expect("an answer").status, 404);

    // another version with a file of the same size: what a browser has of the old one is not taken for the new one
    let source = directory(&sampan, "static-site", &[("index.html", "old")]);
    let url = sampan.up(&source, &["--name", "other"]);
    let old = http::get(&url).expect("an answer");
    let tag = old.header("etag").expect("a tag");
    // the time of all files in images, which would say so of every version
    assert_eq!((old.body.as_str(), old.header("last-modified")), ("old", None));
    fs::write(source.join("index.html"), "new").expect("a file");
    sampan.up(&source, &["--name", "other"]);
    for header in [("If-None-Match", tag), ("If-Modified-Since", "Tue, 01 Jan 1980 00:00:00 GMT")] {
        let answer = http::get_with(&url, &[header]).expect("an answer");
        assert_eq!((answer.status, answer.body.as_str()), (200, "new"), "{header:?}");
    }
}

#[test]
fn several_services_come_up_in_order() {
    let sampan = Sampan::new();
    let shop = sources::example("shop");
    let views = sampan.json(&["up", text(&shop), "--json"]);
    let order: Vec<_> = views.as_array().expect("an array").iter().map(|view| view["name"].clone()).collect();
    assert_eq!(order, ["api", "api-worker", "web"]);
    assert_eq!(views[1]["url"], "", "a worker is not reached");
    let url = |view: &Value| view["url"].as_str().expect("a URL").to_owned();
    assert!(body_of(&url(&views[0])).contains(r#""currency":"EUR""#));
    assert!(body_of(&url(&views[2])).contains("<h1>The shop</h1>"));
    let (_, port, _) = http::split(&url(&views[0]));
    let nobody = http::get(&format!("http://api-worker.localhost:{port}/")).expect("an answer");
    assert_eq!(nobody.status, 404);
    assert_eq!(sampan.inspect("api-worker")["health"], "ready");
    assert!(sampan.ok(&["logs", "api-worker"]).is_empty(), "Go's log is standard error");

    // the same again changes nothing, and one can be brought up alone
    let words = sampan.run(&["up", text(&shop)]).assert_ok();
    assert_eq!(words.stdout, format!("api {}\napi-worker\nweb {}\n", url(&views[0]), url(&views[2])));
    sampan.ok(&["down", "web"]);
    sampan.ok(&["up", text(&shop), "--only", "web"]);
    assert_eq!(names(&sampan), ["api", "api-worker", "web"]);
    sampan.run(&["up", text(&shop), "--only", "shop"]).assert_fails(1, &["no service shop", "api, api-worker, web"]);
    sampan.run(&["up", text(&shop), "--name", "x"]).assert_fails(1, &["--name is for one service", "--only NAME"]);

    // in the directory, `down` is about its services and no others
    let other = directory(&sampan, "other", &[("index.html", "other")]);
    sampan.up(&other, &[]);
    let down = sampan.command(&["down"]).current_dir(&shop).output().expect("sampan runs");
    assert_eq!(String::from_utf8_lossy(&down.stdout), "web\napi-worker\napi\n", "{down:?}");
    assert_eq!(names(&sampan), ["other"]);
    let again = sampan_e2e::sampan::outcome(sampan.command(&["down"]).current_dir(&shop));
    again.assert_fails(1, &["no service of this directory is up", "sampan ps"]);
}

#[test]
fn what_fails_leaves_what_was_up() {
    let sampan = Sampan::new();
    let files = [
        (
            "sampan.toml",
            "[services.a]\npath = \"a\"\n[services.b]\npath = \"b\"\ndepends_on = [\"a\"]\n[services.c]\npath = \"a\"\ndepends_on = [\"b\"]\n",
        ),
        ("a/index.html", "a"),
        ("b/main.go", "package main\n\nimport \"os\"\n\nfunc main() { println(\"no luck\"); os.Exit(3) }\n"),
    ];
    let source = directory(&sampan, "chain", &files);
    let words = ["b exited with code 3", "| no luck", "b is not up. Up and left so: a. Not begun: c."];
    sampan.run(&["up", text(&source)]).assert_fails(1, &words);
    assert_eq!(names(&sampan), ["a"]);

    // a worker that ends is not ready, though it has no port to be found out by
    let worker = [
        (
            "main.go",
            "package main\n\nimport (\"os\"; \"time\")\n\nfunc main() { time.Sleep(200 * time.Millisecond); os.Exit(4) }\n",
        ),
        ("Procfile", "mail: main\n"),
    ];
    let mailer = directory(&sampan, "mailer", &worker);
    sampan.run(&["up", text(&mailer)]).assert_fails(1, &["mailer-mail exited with code 4 before it was ready"]);
    assert_eq!(names(&sampan), ["a"]);

    // nothing is begun where one does not compile
    fs::write(source.join("b/main.go"), "package main\n\nfunc main() { nonsense }\n").expect("a file");
    sampan.ok(&["down", "a"]);
    sampan.run(&["up", text(&source)]).assert_fails(1, &["does not compile"]);
    assert!(names(&sampan).is_empty());
}

#[test]
fn a_volume_outlives_its_service() {
    // counts its starts
    let main = "package main\n\nimport (\n\t\"fmt\"\n\t\"net/http\"\n\t\"os\"\n)\n\nfunc main() {\n\t\
        file, err := os.OpenFile(\"/data/starts\", os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o644)\n\tif err != nil {\n\t\tpanic(err)\n\t}\n\t\
        file.Write([]byte(\".\"))\n\tinfo, _ := file.Stat()\n\t\
        http.HandleFunc(\"/\", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, info.Size()) })\n\t\
        http.ListenAndServe(\":8080\", nil)\n}\n";
    let sampan = Sampan::new();
    let files = [("main.go", main), ("sampan.toml", "name = \"counter\"\nvolumes = [\"starts:/data\"]\n")];
    let source = directory(&sampan, "counter", &files);
    assert_eq!(body_of(&sampan.up(&source, &[])), "1");
    assert_eq!(body_of(&sampan.up(&source, &["-e", "ANOTHER=version"])), "2");
    sampan.ok(&["down", "counter"]);
    assert_eq!(body_of(&sampan.up(&source, &[])), "3");
}

#[test]
fn mistakes_in_the_words() {
    let sampan = Sampan::new();
    let check = |name: &str, files: &[(&str, &str)], words: &[&str]| {
        let source = directory(&sampan, name, files);
        sampan.run(&["up", text(&source)]).assert_fails(1, words);
    };
    let main = ("main.go", "package main\n\nfunc main() {}\n");
    check("shell", &[main, ("Procfile", "web: main && echo done\n")], &["Procfile:1:", "`&&` needs a shell"]);
    check("release", &[main, ("Procfile", "release: main\nweb: main\n")], &["`release` process", "sampan run"]);
    check(
        "program",
        &[main, ("Procfile", "web: python app.py\n")],
        &["the process web in", "runs \"python\"", "there is: main"],
    );
    check(
        "variable",
        &[("index.html", ""), main, ("Procfile", "web: main $COLOUR\n")],
        &["$COLOUR", "-e COLOUR=VALUE"],
    );
    check("ring", &[("sampan.toml", "[services.a]\ndepends_on = [\"a\"]\n")], &["sampan.toml:2:1", "a -> a"]);
    check("nobody", &[("sampan.toml", "[services.a]\ndepends_on = [\"b\"]\n")], &["`b`, which is no service here"]);
    sampan.assert_nothing_runs();
}
