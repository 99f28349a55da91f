use super::*;

#[test]
fn a_greeting_survives_the_wire() {
    let greeting = Greeting::new("6.12.1 custom");
    assert_eq!(greeting.to_string().parse::<Greeting>().unwrap(), greeting);
    assert_eq!(greeting.kernel_release, "6.12.1_custom");
}

#[test]
fn another_protocol_is_named() {
    assert_eq!("bulkhead-agent 7 0.9 6.12".parse::<Greeting>(), Err(GreetingError::Protocol { guest: 7 }));
}

#[test]
fn anything_else_is_not_a_greeting() {
    for line in [
        "",
        "\n",
        "hello",
        "bulkhead-agent",
        "bulkhead-agent x",
        "bulkhead-agent 1 a",
        "bulkhead-agent 1 a b c",
        "bulkhead-agent 1 \u{1b}[2J k",
    ] {
        assert_eq!(line.parse::<Greeting>(), Err(GreetingError::NotAGreeting), "{line:?}");
    }
}
