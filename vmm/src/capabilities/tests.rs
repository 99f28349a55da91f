use super::*;

fn all(number: u32) -> i32 {
    if number == KVM_CAP_MAX_VCPUS { 1024 } else { 509 }
}

#[test]
fn a_kvm_with_everything_is_taken() {
    assert_eq!(lacking(all), Ok(()));
}

#[test]
fn what_is_missing_is_named_with_its_use() {
    let error = lacking(|number| if number == KVM_CAP_TSC_DEADLINE_TIMER { 0 } else { all(number) });
    assert_eq!(
        error.unwrap_err().to_string(),
        "this KVM lacks KVM_CAP_TSC_DEADLINE_TIMER (the guest's only timer)"
    );
    let none = lacking(|_| -1).unwrap_err();
    assert_eq!(none.0.len(), REQUIRED.len());
}

#[test]
fn a_number_that_is_too_small_counts_as_missing() {
    let error = lacking(|number| if number == KVM_CAP_MAX_VCPUS { 16 } else { all(number) }).unwrap_err();
    assert_eq!(error.to_string(), "this KVM lacks KVM_CAP_MAX_VCPUS (as many vCPUs as a machine may have)");
}
