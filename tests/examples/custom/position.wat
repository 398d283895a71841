;; A custom type: where something is, as receivers of satellite signals tell it. A value has 28 bytes, in a tenth of what the same takes as JSON text.
;;
;;    0  u8    version, 1              12  i32  altitude above the sea, in centimetres
;;    1  u8    fix: 0 none, 1 2d, 2 3d 16  u16  speed, in centimetres a second
;;    2  u16   satellites in use       18  u16  heading, in hundredths of a degree east of north
;;    4  i32   latitude, in 1e-6°      20  u64  time, in milliseconds since 1970
;;    8  i32   longitude, in 1e-6°
;;
;; All numbers have their least significant byte first. What a fix does not tell is zero: without one all but time and satellites, and of a 2d one the altitude. So equal positions are equal bytes.
;;
;; In JSON: {"time": 1709208000000, "fix": "3d", "satellites": 9, "latitude": 52.520008, "longitude": 13.404954, "altitude": 34.50, "speed": 1.25, "heading": 270.00}.
;; Values are given as bytes: there is no from_json.
;;
;; A delta is a byte whose bits say which of the seven words of 4 bytes have changed, and these words. A position that moves on mostly takes 13 bytes.
(module
  (memory (export "memory") 1)

  ;; What is said, each text ended by a zero. A refusal is its place and, on the next line, the reason.
  (data (i32.const 0x000) "a position has 28 bytes\00")
  (data (i32.const 0x040) "/version\nonly version 1 is known\00")
  (data (i32.const 0x080) "/fix\nit is not none (0), 2d (1) or 3d (2)\00")
  (data (i32.const 0x0c0) "/satellites\nthere are at most 200\00")
  (data (i32.const 0x100) "/latitude\nit is beyond 90 degrees\00")
  (data (i32.const 0x140) "/longitude\nit is beyond 180 degrees\00")
  (data (i32.const 0x180) "/altitude\nit is more than 10 km below the sea, or 20,000 km above\00")
  (data (i32.const 0x1e0) "/heading\nit is not below 360 degrees\00")
  (data (i32.const 0x220) "/time\nit is after the year 9999\00")
  (data (i32.const 0x260) "/fix\nwithout a fix there is no position: these are zero\00")
  (data (i32.const 0x2a0) "/altitude\na 2d fix has none: it is zero\00")
  (data (i32.const 0x2e0) "not a delta of a position\00")
  (data (i32.const 0x400) "{\"time\":\00")
  (data (i32.const 0x410) ",\"fix\":\"\00")
  (data (i32.const 0x420) "none\00")
  (data (i32.const 0x428) "2d\00")
  (data (i32.const 0x430) "3d\00")
  (data (i32.const 0x440) "\",\"satellites\":\00")
  (data (i32.const 0x460) ",\"latitude\":\00")
  (data (i32.const 0x480) ",\"longitude\":\00")
  (data (i32.const 0x4a0) ",\"altitude\":\00")
  (data (i32.const 0x4c0) ",\"speed\":\00")
  (data (i32.const 0x4e0) ",\"heading\":\00")

  ;; Where the next bytes may be put that a function is given: behind what is answered, which begins at 0x800.
  (global $free (mut i32) (i32.const 0x1000))
  ;; The end of what has been written for the answer.
  (global $end (mut i32) (i32.const 0x800))

  (func (export "alloc") (param $length i32) (result i32)
    (local $at i32) (local $missing i32)
    (local.set $at (global.get $free))
    (global.set $free (i32.add (local.get $at) (local.get $length)))
    ;; Values are short, but anybody may write what is none.
    (local.set $missing (i32.sub (i32.shr_u (i32.add (global.get $free) (i32.const 0xffff)) (i32.const 16)) (memory.size)))
    (if (i32.gt_s (local.get $missing) (i32.const 0)) (then (drop (memory.grow (local.get $missing)))))
    (local.get $at))

  ;; An answer of these bytes.
  (func $answer (param $at i32) (param $length i32) (result i64)
    (i64.or (i64.shl (i64.extend_i32_u (local.get $at)) (i64.const 32)) (i64.extend_i32_u (local.get $length))))

  (func $written (result i64)
    (call $answer (i32.const 0x800) (i32.sub (global.get $end) (i32.const 0x800))))

  (func $length (param $text i32) (result i32)
    (local $end i32)
    (local.set $end (local.get $text))
    (block $done
      (loop $next
        (br_if $done (i32.eqz (i32.load8_u (local.get $end))))
        (local.set $end (i32.add (local.get $end) (i32.const 1)))
        (br $next)))
    (i32.sub (local.get $end) (local.get $text)))

  (func $refusal (param $text i32) (result i64)
    (i64.or (i64.const 0x8000000000000000) (call $answer (local.get $text) (call $length (local.get $text)))))

  (func $beyond (param $value i32) (param $most i32) (result i32)
    (i32.or (i32.gt_s (local.get $value) (local.get $most)) (i32.lt_s (local.get $value) (i32.sub (i32.const 0) (local.get $most)))))

  (func $validate (export "validate") (param $at i32) (param $length i32) (result i64)
    (local $fix i32)
    (if (i32.ne (local.get $length) (i32.const 28)) (then (return (call $refusal (i32.const 0x000)))))
    (if (i32.ne (i32.load8_u (local.get $at)) (i32.const 1)) (then (return (call $refusal (i32.const 0x040)))))
    (local.set $fix (i32.load8_u offset=1 (local.get $at)))
    (if (i32.gt_u (local.get $fix) (i32.const 2)) (then (return (call $refusal (i32.const 0x080)))))
    (if (i32.gt_u (i32.load16_u offset=2 (local.get $at)) (i32.const 200)) (then (return (call $refusal (i32.const 0x0c0)))))
    (if (call $beyond (i32.load offset=4 (local.get $at)) (i32.const 90000000)) (then (return (call $refusal (i32.const 0x100)))))
    (if (call $beyond (i32.load offset=8 (local.get $at)) (i32.const 180000000)) (then (return (call $refusal (i32.const 0x140)))))
    (if (i32.or
          (i32.lt_s (i32.load offset=12 (local.get $at)) (i32.const -1000000))
          (i32.gt_s (i32.load offset=12 (local.get $at)) (i32.const 2000000000)))
      (then (return (call $refusal (i32.const 0x180)))))
    (if (i32.ge_u (i32.load16_u offset=18 (local.get $at)) (i32.const 36000)) (then (return (call $refusal (i32.const 0x1e0)))))
    (if (i64.gt_u (i64.load offset=20 (local.get $at)) (i64.const 253402300799999)) (then (return (call $refusal (i32.const 0x220)))))
    (if (i32.eqz (local.get $fix))
      (then
        (if (i64.ne (i64.const 0) (i64.or (i64.load offset=4 (local.get $at)) (i64.load offset=12 (local.get $at))))
          (then (return (call $refusal (i32.const 0x260)))))))
    (if (i32.and (i32.eq (local.get $fix) (i32.const 1)) (i32.ne (i32.const 0) (i32.load offset=12 (local.get $at))))
      (then (return (call $refusal (i32.const 0x2a0)))))
    (i64.const 0))

  (func $put_byte (param $byte i32)
    (i32.store8 (global.get $end) (local.get $byte))
    (global.set $end (i32.add (global.get $end) (i32.const 1))))

  (func $put (param $text i32)
    (local $length i32)
    (local.set $length (call $length (local.get $text)))
    (memory.copy (global.get $end) (local.get $text) (local.get $length))
    (global.set $end (i32.add (global.get $end) (local.get $length))))

  ;; A number with so many digits behind its point, and none without one.
  (func $put_number (param $number i64) (param $scale i32)
    (if (i64.lt_s (local.get $number) (i64.const 0))
      (then
        (call $put_byte (i32.const 45))
        (local.set $number (i64.sub (i64.const 0) (local.get $number)))))
    (call $put_digits (local.get $number) (local.get $scale)))

  (func $put_digits (param $number i64) (param $scale i32)
    ;; Whatever stands before these digits comes first.
    (if (i32.or (i64.ge_u (local.get $number) (i64.const 10)) (i32.gt_s (local.get $scale) (i32.const 0)))
      (then (call $put_digits (i64.div_u (local.get $number) (i64.const 10)) (i32.sub (local.get $scale) (i32.const 1)))))
    (call $put_byte (i32.add (i32.const 48) (i32.wrap_i64 (i64.rem_u (local.get $number) (i64.const 10)))))
    (if (i32.eq (local.get $scale) (i32.const 1)) (then (call $point))))

  ;; Puts a point before the digit that has been put last: it is the first of the fraction.
  (func $point
    (local $digit i32)
    (local.set $digit (i32.load8_u (i32.sub (global.get $end) (i32.const 1))))
    (i32.store8 (i32.sub (global.get $end) (i32.const 1)) (i32.const 46))
    (call $put_byte (local.get $digit)))

  (func (export "to_json") (param $at i32) (param $length i32) (result i64)
    (local $fix i32) (local $wrong i64)
    (local.set $wrong (call $validate (local.get $at) (local.get $length)))
    (if (i64.ne (local.get $wrong) (i64.const 0)) (then (return (local.get $wrong))))
    (local.set $fix (i32.load8_u offset=1 (local.get $at)))
    (call $put (i32.const 0x400))
    (call $put_number (i64.load offset=20 (local.get $at)) (i32.const 0))
    (call $put (i32.const 0x410))
    (call $put (select (i32.const 0x420) (select (i32.const 0x428) (i32.const 0x430) (i32.eq (local.get $fix) (i32.const 1))) (i32.eqz (local.get $fix))))
    (call $put (i32.const 0x440))
    (call $put_number (i64.extend_i32_u (i32.load16_u offset=2 (local.get $at))) (i32.const 0))
    (if (local.get $fix)
      (then
        (call $put (i32.const 0x460))
        (call $put_number (i64.load32_s offset=4 (local.get $at)) (i32.const 6))
        (call $put (i32.const 0x480))
        (call $put_number (i64.load32_s offset=8 (local.get $at)) (i32.const 6))
        (if (i32.eq (local.get $fix) (i32.const 2))
          (then
            (call $put (i32.const 0x4a0))
            (call $put_number (i64.load32_s offset=12 (local.get $at)) (i32.const 2))))
        (call $put (i32.const 0x4c0))
        (call $put_number (i64.load16_u offset=16 (local.get $at)) (i32.const 2))
        (call $put (i32.const 0x4e0))
        (call $put_number (i64.load16_u offset=18 (local.get $at)) (i32.const 2))))
    (call $put_byte (i32.const 125))
    (call $written))

  (func $put_word (param $at i32)
    (i32.store (global.get $end) (i32.load (local.get $at)))
    (global.set $end (i32.add (global.get $end) (i32.const 4))))

  (func (export "delta") (param $base i32) (param $base_length i32) (param $new i32) (param $length i32) (result i64)
    (local $word i32) (local $changed i32)
    (if (i32.or (i32.ne (local.get $base_length) (i32.const 28)) (i32.ne (local.get $length) (i32.const 28)))
      (then (return (call $refusal (i32.const 0x000)))))
    (call $put_byte (i32.const 0))
    (loop $next
      (if (i32.ne
            (i32.load (i32.add (local.get $base) (i32.shl (local.get $word) (i32.const 2))))
            (i32.load (i32.add (local.get $new) (i32.shl (local.get $word) (i32.const 2)))))
        (then
          (local.set $changed (i32.or (local.get $changed) (i32.shl (i32.const 1) (local.get $word))))
          (call $put_word (i32.add (local.get $new) (i32.shl (local.get $word) (i32.const 2))))))
      (local.set $word (i32.add (local.get $word) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $word) (i32.const 7))))
    (i32.store8 (i32.const 0x800) (local.get $changed))
    (call $written))

  (func (export "apply") (param $base i32) (param $base_length i32) (param $delta i32) (param $length i32) (result i64)
    (local $word i32) (local $changed i32) (local $from i32)
    (if (i32.or (i32.ne (local.get $base_length) (i32.const 28)) (i32.eqz (local.get $length)))
      (then (return (call $refusal (i32.const 0x2e0)))))
    (local.set $changed (i32.load8_u (local.get $delta)))
    (if (i32.or
          (i32.gt_u (local.get $changed) (i32.const 127))
          (i32.ne (local.get $length) (i32.add (i32.const 1) (i32.shl (i32.popcnt (local.get $changed)) (i32.const 2)))))
      (then (return (call $refusal (i32.const 0x2e0)))))
    (local.set $from (i32.add (local.get $delta) (i32.const 1)))
    (loop $next
      (if (i32.and (i32.shr_u (local.get $changed) (local.get $word)) (i32.const 1))
        (then
          (call $put_word (local.get $from))
          (local.set $from (i32.add (local.get $from) (i32.const 4))))
        (else (call $put_word (i32.add (local.get $base) (i32.shl (local.get $word) (i32.const 2))))))
      (local.set $word (i32.add (local.get $word) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $word) (i32.const 7))))
    (call $written)))
