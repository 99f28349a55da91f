use super::*;

fn parsed(annotations: &[(&str, &str)]) -> Result<PodLimits, SpecError> {
    parse(&annotations.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
}

#[test]
fn a_pod_has_the_limits_that_its_annotations_say() {
    let limits = parsed(&[(POD_MEMORY, "268435456"), (POD_CPU_QUOTA, "150000"), (POD_CPU_PERIOD, "100000")]);
    let expected = PodLimits {
        memory: Some(Limit::Value(256 << 20)),
        cpu_quota: Some(Limit::Value(150_000)),
        cpu_period: Some(100_000),
    };
    assert_eq!(limits.unwrap(), expected);
}

#[test]
fn a_pod_without_limits_has_none() {
    for value in ["0", "-1"] {
        let limits = parsed(&[(POD_MEMORY, value), (POD_CPU_QUOTA, value), (POD_CPU_PERIOD, value)]);
        assert_eq!(limits.unwrap(), PodLimits::default());
    }
    assert_eq!(parsed(&[]).unwrap(), PodLimits::default());
}

#[test]
fn what_is_no_number_is_refused_by_its_name() {
    for value in ["", "1Gi", "1.5", "99999999999999999999"] {
        let refused = parsed(&[(POD_MEMORY, value)]).unwrap_err().to_string();
        assert!(refused.starts_with(r#"annotations["io.kubernetes.cri.sandbox-memory"]: "#), "{refused}");
    }
}
