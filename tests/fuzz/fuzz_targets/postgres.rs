#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| l4lb_fuzz::postgres::check(data));
