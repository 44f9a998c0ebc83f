//! The rules of form of a resource, and the routes that follow from it.

use super::*;

#[test]
fn the_shipped_resource_is_in_order_and_has_two_routes() {
    let resource = Resource::entity_user();
    assert_eq!(resource.check(), []);
    let routes: Vec<_> = resource
        .routes()
        .into_iter()
        .map(|route| {
            let methods: Vec<_> = route.methods.iter().map(|(m, _)| *m).collect();
            (route.path, methods)
        })
        .collect();
    assert_eq!(
        routes,
        [
            ("/entity/user".to_owned(), vec!["POST"]),
            ("/user/{user}".to_owned(), vec!["GET", "PATCH", "DELETE"]),
        ]
    );
}

#[test]
fn what_is_off_or_incomplete_has_no_route() {
    let mut off = Resource::entity_user();
    off.enabled = false;
    assert_eq!(off.routes(), []);
    for lacking in ["methods", "formats", "authentication"] {
        let mut resource = Resource::entity_user();
        let Rules::Resource { methods, formats, authentication, .. } = &mut resource.rules else {
            unreachable!()
        };
        match lacking {
            "methods" => methods.clear(),
            "formats" => formats.clear(),
            _ => authentication.clear(),
        }
        assert_eq!(resource.routes(), [], "{lacking}");
        assert_eq!(resource.check().len(), 1, "{lacking}");
    }
}

#[test]
fn patterns_have_one_spelling() {
    for good in ["/", "/a", "/a/", "/orders/{id}", "/files/{*rest}"] {
        assert_eq!(check_pattern(good), Ok(()), "{good}");
    }
    for bad in [
        "",
        "a",
        "//a",
        "/a//b",
        "/./a",
        "/a/../b",
        "/a;b",
        "/a%2fb",
        "/a b",
        "/é",
        "/-/verify",
        "/a\\b",
        "/{*a}/b",
        "/{a",
        "/a?b",
    ] {
        assert!(check_pattern(bad).is_err(), "{bad}");
    }
}
