use super::Ports;

#[test]
fn ports_are_two_or_one_for_both() {
    assert_eq!("8080:80".parse(), Ok(Ports { local: 8080, remote: 80 }));
    assert_eq!("80".parse(), Ok(Ports { local: 80, remote: 80 }));
    assert_eq!(":80".parse(), Ok(Ports { local: 0, remote: 80 }));
    assert!(
        "80:".parse::<Ports>().is_err() && "".parse::<Ports>().is_err() && "65536".parse::<Ports>().is_err()
    );
}
