/* Times as text. See time.h. Days → date after Hinnant, "chrono-compatible low-level date algorithms". */
#include "base/time.h"

#include <stdio.h>

void time_print(int64_t t_ms, char out[TIME_TEXT_BYTES])
{
    int64_t days = t_ms / MS_PER_DAY - (t_ms % MS_PER_DAY < 0);
    int64_t ms = t_ms - days * MS_PER_DAY;
    int64_t shifted = days + 719468; /* days since 0000-03-01 */
    int64_t era = (shifted >= 0 ? shifted : shifted - 146096) / 146097;
    int64_t day_of_era = shifted - era * 146097;
    int64_t year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t month_index = (5 * day_of_year + 2) / 153; /* from March */
    int day = (int)(day_of_year - (153 * month_index + 2) / 5 + 1);
    int month = (int)(month_index < 10 ? month_index + 3 : month_index - 9);
    int year = (int)(year_of_era + era * 400 + (month <= 2));
    snprintf(out, TIME_TEXT_BYTES, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", year, month, day,
             (int)(ms / MS_PER_HOUR), (int)(ms / MS_PER_MINUTE % 60), (int)(ms / MS_PER_SECOND % 60),
             (int)(ms % 1000));
}
