use super::guest::{Guest, connect};
use super::packet::{HEADER, Header, MAX_PAYLOAD, Op};
use std::io::{Read, Write};
use vm_memory::{Bytes, GuestAddress};
#[test]
#[ignore]
fn speed() {
    let mut guest = Guest::new();
    let (client, mut peer) = connect(&mut guest, 256 << 10);
    client.set_nonblocking(false).unwrap();
    let total: usize = 4 << 30;
    let mut c2 = client.try_clone().unwrap();
    let t = std::thread::spawn(move || {
        let mut b = vec![0u8; 256 << 10];
        let mut n = 0;
        while n < total {
            let k = c2.read(&mut b).unwrap();
            if k == 0 {
                break;
            }
            n += k;
        }
        n
    });
    let started = std::time::Instant::now();
    let mut sent = 0;
    let mut stalls = 0;
    while sent < total {
        let n = (peer.credit() as usize).min(MAX_PAYLOAD as usize);
        if n > 0 {
            let header = Header { len: n as u32, ..peer.header(Op::Data) };
            let addresses = guest.tx.offer(&guest.memory.clone(), &[(HEADER as u32, 0), (n as u32, 0)]);
            guest.memory.write_slice(&header.bytes(), GuestAddress(addresses[0])).unwrap();
            guest.step();
            guest.tx.take_used(&guest.memory.clone());
            guest.tx.give_back(2);
            peer.add_sent(n as u32);
            sent += n;
        } else {
            stalls += 1;
        }
        peer.sync(&mut guest);
    }
    t.join().unwrap();
    let s = started.elapsed().as_secs_f64();
    println!("to host {:.2} GiB/s, {stalls} stalls", total as f64 / s / (1u64 << 30) as f64);
    let total: usize = 1 << 30;
    let mut c2 = client.try_clone().unwrap();
    let t = std::thread::spawn(move || {
        let b = vec![0u8; 256 << 10];
        let mut n = 0;
        while n < total {
            n += c2.write(&b).unwrap();
        }
    });
    let started = std::time::Instant::now();
    let mut got = 0usize;
    while got < total {
        guest.step();
        let ps = guest.packets();
        got += ps.iter().map(|p| p.payload.len()).sum::<usize>();
        peer.take(&ps);
        peer.received.clear();
        peer.read = got as u32;
        guest.send(&peer.header(Op::CreditUpdate), &[]);
    }
    let s = started.elapsed().as_secs_f64();
    println!("to guest {:.2} GiB/s", got as f64 / s / (1u64 << 30) as f64);
    t.join().ok();
}
