//! The page at `/`: files embedded in the program, and their headers. They contain no figures and no secret, so they
//! need no token: the script asks the API and presents the token like every client.

use axum::Router;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// Nothing from elsewhere, nothing inline, in no frame: code hidden in a name or a message does not run.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";

struct File {
    path: &'static str,
    kind: &'static str,
    text: &'static str,
}

static FILES: [File; 14] = [
    File { path: "/", kind: HTML, text: include_str!("page/index.html") },
    File { path: "/style.css", kind: CSS, text: include_str!("page/style.css") },
    File { path: "/app.js", kind: JS, text: include_str!("page/app.js") },
    File { path: "/api.js", kind: JS, text: include_str!("page/api.js") },
    File { path: "/change.js", kind: JS, text: include_str!("page/change.js") },
    File { path: "/chart.js", kind: JS, text: include_str!("page/chart.js") },
    File { path: "/events.js", kind: JS, text: include_str!("page/events.js") },
    File { path: "/history.js", kind: JS, text: include_str!("page/history.js") },
    File { path: "/listeners.js", kind: JS, text: include_str!("page/listeners.js") },
    File { path: "/pools.js", kind: JS, text: include_str!("page/pools.js") },
    File { path: "/reload.js", kind: JS, text: include_str!("page/reload.js") },
    File { path: "/sessions.js", kind: JS, text: include_str!("page/sessions.js") },
    File { path: "/sources.js", kind: JS, text: include_str!("page/sources.js") },
    File { path: "/words.js", kind: JS, text: include_str!("page/words.js") },
];

/// Returns the routes of the page and its files.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES.iter().fold(Router::new(), |routes, file| routes.route(file.path, get(async || file.answer())))
}

impl File {
    fn answer(&self) -> Response {
        let headers = [
            (CONTENT_TYPE, self.kind),
            (CONTENT_SECURITY_POLICY, POLICY),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (REFERRER_POLICY, "no-referrer"),
            // A browser may keep it but must revalidate: after an update page and API must match.
            (CACHE_CONTROL, "no-cache"),
        ];
        (headers, self.text).into_response()
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use tower::ServiceExt;

    use super::*;

    fn named(path: &str) -> Option<&'static File> {
        FILES.iter().find(|file| file.path.trim_start_matches('/') == path)
    }

    #[tokio::test]
    async fn every_file_comes_with_the_policy() {
        for file in &FILES {
            let request = axum::http::Request::get(file.path).body(Body::empty()).unwrap();
            let answer = routes::<()>().oneshot(request).await.unwrap();
            let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
            assert_eq!(header(CONTENT_TYPE), Some(file.kind), "{}", file.path);
            assert_eq!(header(CONTENT_SECURITY_POLICY), Some(POLICY), "{}", file.path);
            assert_eq!(header(X_CONTENT_TYPE_OPTIONS), Some("nosniff"), "{}", file.path);
        }
    }

    /// Returns the text between each `before` and the next quote.
    fn quoted<'t>(text: &'t str, before: &str) -> Vec<&'t str> {
        let ends = ['"', '\''];
        text.split(before).skip(1).filter_map(|rest| rest.split(ends).next()).collect()
    }

    #[test]
    fn all_that_the_page_loads_is_part_of_it() {
        let html = named("").unwrap().text;
        let loaded = ["<script type=\"module\" src=\"", "<link rel=\"stylesheet\" href=\""];
        let mut wanted: Vec<&str> = loaded.iter().flat_map(|before| quoted(html, before)).collect();
        assert_eq!(wanted, ["app.js", "style.css"]);
        for script in FILES.iter().filter(|file| file.kind == JS) {
            wanted.extend(quoted(script.text, "from './"));
        }
        let missing: Vec<&&str> = wanted.iter().filter(|path| named(path).is_none()).collect();
        assert!(missing.is_empty(), "{missing:?}");
        let unused: Vec<&str> =
            FILES[1..].iter().map(|file| &file.path[1..]).filter(|path| !wanted.contains(path)).collect();
        assert!(unused.is_empty(), "{unused:?}");
    }

    #[test]
    fn the_page_needs_no_more_than_its_policy_allows() {
        for file in &FILES {
            for banned in
                ["http://", "https://", " style=", " onclick=", "<style", "eval(", "innerHTML", "javascript:"]
            {
                // The name of a namespace is no address.
                let text = file.text.replace("http://www.w3.org/2000/svg", "");
                assert!(!text.contains(banned), "{}: {banned}", file.path);
            }
        }
    }
}
