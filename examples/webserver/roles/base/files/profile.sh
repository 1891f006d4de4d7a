export EDITOR=vi
export PAGER=less
export HISTTIMEFORMAT='%F %T '
