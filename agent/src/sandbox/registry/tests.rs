use super::*;

#[test]
fn an_id_is_taken_until_its_reservation_is_dropped() {
    let registry = Registry::default();
    let id: ContainerId = "web".parse().unwrap();
    let held = registry.reserve(id.clone()).unwrap();
    let error = registry.reserve(id.clone()).unwrap_err();
    assert_eq!(error.to_string(), "container with given ID already exists: web");
    drop(held);
    assert!(registry.reserve(id).is_ok());
}

#[test]
fn there_is_a_limit_to_the_containers_of_a_sandbox() {
    let registry = Registry::default();
    let held: Vec<_> = (0..limits::CONTAINERS)
        .map(|index| registry.reserve(format!("c{index}").parse().unwrap()).unwrap())
        .collect();
    let error = registry.reserve("more".parse().unwrap()).unwrap_err();
    assert!(matches!(error, SandboxError::TooManyContainers));
    assert_eq!(registry.containers().len(), held.len());
}

#[test]
fn a_container_that_is_being_made_cannot_be_asked_before_it_is_announced() {
    let registry = Registry::default();
    let id: ContainerId = "web".parse().unwrap();
    let held = registry.reserve(id.clone()).unwrap();
    assert!(matches!(registry.actor(&id), Err(SandboxError::NoContainer(_))));
    held.announce(mpsc::channel(1).0);
    registry.actor(&id).unwrap();
}
