#!/bin/sh
#
# build.sh PACKAGE STAGE VERSION OUTPUT [SERVICE LIB]: make a Debian package of the files in STAGE.
#
# SERVICE is the daemon in it, if any, and LIB the directory where its maintain script is
# installed. File times are SOURCE_DATE_EPOCH at the latest, so that equal sources make equal
# packages.

set -eu
umask 022

package=$1
stage=$2
version=$3
output=$4
service=${5-}
lib=${6-}
here=$(dirname "$0")

fill_in() {
    sed -e "s,@VERSION@,$version,g" -e "s,@SERVICE@,$service,g" -e "s,@LIB@,$lib,g" "$@"
}

doc=$stage/usr/share/doc/$package
install -D -m 0644 "$here/copyright" "$doc/copyright"
install -D -m 0644 "$here/lintian-overrides" "$stage/usr/share/lintian/overrides/$package"
gzip -9n <"$here/../../CHANGELOG.md" >"$doc/changelog.gz"
fill_in -e "s/@DATE@/$(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")/" "$here/changelog" |
    gzip -9n >"$doc/changelog.Debian.gz"

control=$stage/DEBIAN
size=$(du -sk --apparent-size "$stage" | cut -f 1)
install -d "$control"
fill_in -e "s,@SIZE@,$size," "$here/$package.control" >"$control/control"
for script in postinst prerm postrm; do
    if [ -f "$here/$package.$script" ]; then
        install -m 0755 "$here/$package.$script" "$control/$script"
    elif [ -n "$service" ]; then
        fill_in "$here/service.$script" >"$control/$script"
        chmod 0755 "$control/$script"
    fi
done
(
    cd "$stage"
    find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum >DEBIAN/md5sums
    [ ! -d etc ] || find etc -type f -printf '/%p\n' | LC_ALL=C sort >DEBIAN/conffiles
    [ -s DEBIAN/conffiles ] || rm -f DEBIAN/conffiles
)
dpkg-deb --root-owner-group --build "$stage" "$output"
