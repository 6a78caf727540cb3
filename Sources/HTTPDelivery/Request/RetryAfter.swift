/// A `Retry-After` header (RFC 9110, section 10.2.3).
package enum RetryAfter: Sendable, Equatable {
  case seconds(Int)
  /// Unix time, in seconds.
  case date(Int)

  /// Longer waits mean nothing to a caller that caps them anyway, and would overflow arithmetic.
  private static let longestSeconds = 366 * 86_400

  /// Nil for anything that is neither a whole number of seconds nor an HTTP date in its preferred form.
  package init?(parsing value: some StringProtocol) {
    let bytes = Array(value.utf8.drop { $0 == 0x20 || $0 == 0x09 })
    let end = bytes.lastIndex { $0 != 0x20 && $0 != 0x09 } ?? -1
    let trimmed = bytes[0..<(end + 1)]
    if let seconds = Self.seconds(trimmed) {
      self = .seconds(seconds)
    } else if let unixSeconds = Self.date(trimmed) {
      self = .date(unixSeconds)
    } else {
      return nil
    }
  }

  private static func seconds(_ digits: ArraySlice<UInt8>) -> Int? {
    guard !digits.isEmpty, digits.count <= 100 else { return nil }
    var seconds = 0
    for digit in digits {
      guard (0x30...0x39).contains(digit) else { return nil }
      seconds = min(seconds * 10 + Int(digit - 0x30), longestSeconds)
    }
    return seconds
  }

  /// `Sun, 06 Nov 1994 08:49:37 GMT`: 29 bytes at fixed places. The two obsolete forms of RFC 9110 are not read: no
  /// server that sends `Retry-After` is old enough to use them.
  private static func date(_ text: ArraySlice<UInt8>) -> Int? {
    let text = Array(text)
    guard text.count == 29, Array(text[25...]) == Array(" GMT".utf8), text[3] == 0x2C, text[19] == 0x3A,
      text[22] == 0x3A, [4, 7, 11, 16].allSatisfy({ text[$0] == 0x20 })
    else { return nil }
    func number(_ range: Range<Int>) -> Int? {
      var value = 0
      for digit in text[range] {
        guard (0x30...0x39).contains(digit) else { return nil }
        value = value * 10 + Int(digit - 0x30)
      }
      return value
    }
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
    guard let day = number(5..<7), (1...31).contains(day),
      let month = months.firstIndex(of: String(decoding: text[8..<11], as: UTF8.self)),
      let year = number(12..<16), year >= 1970,
      let hour = number(17..<19), hour < 24, let minute = number(20..<22), minute < 60,
      let second = number(23..<25), second <= 60
    else { return nil }
    return daysSinceEpoch(year: year, month: month + 1, day: day) * 86_400 + hour * 3600 + minute * 60 + second
  }

  /// Days since 1970-01-01 in the Gregorian calendar, counting years from March so that the leap day comes last.
  private static func daysSinceEpoch(year: Int, month: Int, day: Int) -> Int {
    let year = month <= 2 ? year - 1 : year
    let era = year / 400
    let yearOfEra = year - era * 400
    let dayOfYear = (153 * ((month + 9) % 12) + 2) / 5 + day - 1
    let dayOfEra = yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear
    return era * 146_097 + dayOfEra - 719_468
  }
}
