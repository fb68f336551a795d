//! Role × action × scope, as a table.

use loom_core::{
    Principal,
    authorize::{Action, Ownership, Visibility, authorize},
    id::{ApiKeyId, OrgId, UserId},
    principal::{Actor, OrgRole, Scope, Scopes, Via},
};
use uuid::Uuid;

fn org(n: u128) -> OrgId {
    OrgId(Uuid::from_u128(n))
}

fn user(n: u128) -> UserId {
    UserId(Uuid::from_u128(n))
}

fn somebody(role: OrgRole, scopes: &[Scope]) -> Principal {
    Principal {
        actor: Actor::User(user(1)),
        via: Via::DevMode,
        org: org(1),
        role,
        scopes: scopes.iter().copied().collect(),
        system_admin: false,
        auditor: false,
        name: "ada".into(),
    }
}

fn service() -> Principal {
    let actor = Actor::Service(ApiKeyId(Uuid::from_u128(9)));
    Principal { actor, ..somebody(OrgRole::Member, Scope::ALL) }
}

#[test]
fn each_action_asks_for_its_scope_and_its_role() {
    let scope = Scope::AdminWrite;
    let member = somebody(OrgRole::Member, &[scope]);
    let admin = somebody(OrgRole::Admin, &[scope]);
    let owner = somebody(OrgRole::Owner, &[scope]);
    let system = Principal { system_admin: true, ..member.clone() };
    let auditor = Principal { auditor: true, ..member.clone() };
    // Use, ManageOrg, OwnOrg, ManageSystem, InspectSystem.
    let table = [
        ("member", &member, [true, false, false, false, false]),
        ("admin", &admin, [true, true, false, false, false]),
        ("owner", &owner, [true, true, true, false, false]),
        ("system admin", &system, [true, false, false, true, true]),
        ("auditor", &auditor, [true, false, false, false, true]),
    ];
    let actions = [
        Action::Use(scope),
        Action::ManageOrg(scope),
        Action::OwnOrg(scope),
        Action::ManageSystem(scope),
        Action::InspectSystem(scope),
    ];
    for (who, principal, allowed) in table {
        for (action, allowed) in actions.into_iter().zip(allowed) {
            let result = authorize(principal, action);
            assert_eq!(result.is_ok(), allowed, "{who} {action:?}: {result:?}");
            if let Err(error) = result {
                assert_eq!(error.status(), 403);
            }
            // Without the scope nobody may, whatever the role.
            let bare = Principal { scopes: Scopes::default(), ..principal.clone() };
            let error = authorize(&bare, action).unwrap_err();
            assert!(error.detail().contains("admin:write"), "{error}");
        }
    }
}

#[test]
fn every_scope_is_a_bit_of_its_own_and_survives_its_text() {
    for scope in Scope::ALL {
        assert_eq!(scope.as_str().parse::<Scope>().unwrap(), *scope);
        let one: Scopes = [*scope].into_iter().collect();
        assert_eq!(one.iter().collect::<Vec<_>>(), [*scope]);
        assert!(one.is_subset_of(Scopes::all()) && !Scopes::all().is_subset_of(one));
    }
    assert!(Scopes::default().is_subset_of(Scopes::default()));
    assert!("llm:everything".parse::<Scope>().unwrap_err().contains("llm:use"));
}

#[test]
fn a_thing_is_seen_and_changed_by_whom_its_owner_and_visibility_allow() {
    let me = somebody(OrgRole::Member, Scope::ALL);
    let admin = somebody(OrgRole::Admin, Scope::ALL);
    let foreign_admin = Principal { org: org(2), ..admin.clone() };
    let thing = |owner, visibility| Ownership { org: org(1), owner, visibility };
    let (mine, theirs, nobodys) = (Some(user(1)), Some(user(2)), None);
    // (who, whose, visibility) -> seen, then the status of a change.
    let table = [
        ("my own", &me, mine, Visibility::Private, true, None),
        ("a colleague's private", &me, theirs, Visibility::Private, false, Some(404)),
        ("a colleague's shared", &me, theirs, Visibility::Organization, true, Some(403)),
        ("a colleague's public", &me, theirs, Visibility::Public, true, Some(403)),
        ("the organisation's", &me, nobodys, Visibility::Private, false, Some(404)),
        ("an admin, a member's private", &admin, theirs, Visibility::Private, false, Some(404)),
        ("an admin, a member's shared", &admin, theirs, Visibility::Organization, true, None),
        ("an admin, the organisation's", &admin, nobodys, Visibility::Private, true, None),
        ("a service key, the organisation's", &service(), nobodys, Visibility::Private, true, None),
        ("a service key, a member's", &service(), theirs, Visibility::Private, false, Some(404)),
        ("another org, private", &foreign_admin, mine, Visibility::Private, false, Some(404)),
        ("another org, shared", &foreign_admin, mine, Visibility::Organization, false, Some(404)),
        ("another org, public", &foreign_admin, mine, Visibility::Public, true, Some(403)),
    ];
    for (what, who, owner, visibility, seen, refused) in table {
        let thing = thing(owner, visibility);
        assert_eq!(thing.visible_to(who), seen, "{what}");
        let status = thing.require_change(who, "thing").err().map(|e| e.status().as_u16());
        assert_eq!(status, refused, "{what}");
    }
}
