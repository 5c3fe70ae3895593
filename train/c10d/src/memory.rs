//! stub
use tch::Device;
/// s
pub fn allocated(_: Device) -> usize { 0 }
/// s
pub fn peak(_: Device) -> usize { 0 }
/// s
pub fn available(_: Device) -> usize { 8 << 30 }
