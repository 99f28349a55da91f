//! Kubernetes pods: what the kubelet asks of containerd's CRI plugin, with Bulkhead as the runtime.

use bulkhead_tests::host::{Cri, cri_container};

#[test]
fn a_pod_runs_a_container_and_leaves_nothing() {
    let mut cri = Cri::new();
    let pod = cri.pod("first");
    assert!(cri.pod_is_ready(&pod));
    let id = cri.started(&pod, cri_container("one", &["sleep", "1000"]));
    assert_eq!(cri.seen(&id, &["hostname"]), "first\n");
    cri.stop(&id, 0);
    cri.remove(&id);
    cri.remove_pod(&pod);
}
