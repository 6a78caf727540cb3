/// Seconds since 1970-01-01 UTC as the timestamp header writes them.
enum UnixSeconds {
  /// The number in `text`: ASCII digits without sign, space or leading zero, so that one time has one text and the
  /// signed content can be rebuilt from the number. Twelve digits reach to the year 33658.
  static func parse(_ text: String) -> Int? {
    let digits = text.utf8
    guard (1...12).contains(digits.count), digits.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) })
    else { return nil }
    guard digits.count == 1 || digits.first != UInt8(ascii: "0") else { return nil }
    return Int(text)
  }

  /// `seconds` as a whole number, for a message; out of range is cut off rather than trapped on.
  static func clamped(_ seconds: Double) -> Int {
    guard seconds.isFinite else { return 0 }
    return Int(max(-1e15, min(1e15, seconds)).rounded())
  }
}
