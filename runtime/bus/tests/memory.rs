//! The memory of a subscribed room on the bus through NATS. If a room has 30 members, 30 connections share this memory.
#![allow(clippy::unwrap_used)]
use allocation_counter::measure;
use futures_util::future::join_all;
use rollcall_bus::{Bus, nats::NatsBus};
use rollcall_loadtest::servers::Nats;
use rollcall_schema::{ClassroomId, RoomId};
use uuid::Uuid;

const ROOMS: usize = 8_192;
/// The maximum number of bytes of an entry. The map may be half full, and the allocator rounds up.
const MAX: i64 = 200;

#[test]
fn a_subscribed_room_costs_an_entry_of_a_map() {
    let server = Nats::start().unwrap();
    // The runtime has one thread, because the measurement covers one thread.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (bus, _feed) = runtime.block_on(NatsBus::connect(&server.url())).unwrap();
    let measured = measure(|| {
        runtime.block_on(async {
            for _ in 0..ROOMS / 64 {
                let rooms: Vec<_> = (0..64).map(|_| RoomId::Classroom(ClassroomId(Uuid::new_v4()))).collect();
                for subscribed in join_all(rooms.iter().map(|room| bus.subscribe(room))).await {
                    subscribed.unwrap();
                }
            }
        });
    });
    let each = measured.bytes_current / i64::try_from(ROOMS).unwrap();
    println!("{each} bytes a room");
    assert!(each <= MAX, "{each} bytes a room");
}
